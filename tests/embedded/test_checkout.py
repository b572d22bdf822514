"""Where a checkout may lie: what cannot run there says so in one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.api.serving import ROOT


def run(checkout: Path, script: str, **named: object) -> tuple[int, str, str]:
    """Run a script of a checkout that has not been set up."""
    environment = {"PATH": "/usr/bin:/bin", "DATABASE_URL": "postgresql://u@h/x", "REDIS_URL": "redis://h"}
    done = subprocess.run(
        [str(checkout / "scripts" / script)], cwd="/", env=environment, capture_output=True, text=True, check=False,
        timeout=30, **named,  # type: ignore[call-overload]  # an account
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def copied(checkout: Path) -> Path:
    """What is run before the dependencies are there."""
    for folder in ("scripts", "service"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.lock", checkout)
    return checkout


@pytest.mark.parametrize("script", ["server", "migrate.py"])
def test_a_path_with_a_colon_is_refused(tmp_path: Path, script: str) -> None:
    """It separates paths: Python could not find the dependencies there."""
    code, output, errors = run(copied(tmp_path / "a:b"), script)

    assert (2, "") == (code, output)
    assert f"Ladder cannot run in {tmp_path}/a:b: Python takes no virtual environment" in errors
    assert 1 == len(errors.splitlines())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another account")
@pytest.mark.parametrize("script", ["server", "migrate.py"])
def test_a_checkout_that_cannot_be_written_is_refused(open_directory: Path, script: str) -> None:
    """If it has not been set up: the message says that a user with the right to write must do that."""
    checkout = copied(open_directory / "checkout")
    code, output, errors = run(checkout, script, user=65534, group=65534, extra_groups=[])

    assert (1, "") == (code, output)
    assert (
        errors
        == f"{checkout}/.venv is not set up, and this account may not write there: run a script as its owner first.\n"
    )
