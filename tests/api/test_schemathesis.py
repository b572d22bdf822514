"""schemathesis asks the real service what the description allows, and what it does not, and finds no answer amiss."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .serving import ROOT, Service
from .shapes import fresh_name

CONFIG = Path(__file__).with_name("schemathesis.toml")


def search(service: Service, folder: Path, *options: str, seconds: float) -> None:
    """Run every check in every phase; fails with schemathesis' report, which has a curl line for each finding."""
    # The user of the examples, and others to page through.
    service.post({"username": "Ada.Lovelace", "id": "ada"})
    for _ in range(3):
        service.created(fresh_name())
    cursor = service.get("/leaderboard?limit=1").json()["next_cursor"]
    url = f"http://127.0.0.1:{service.settings.port}/openapi.json"
    command = [sys.executable, "-P", "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", url, *options]
    environment = {"PYTHONPATH": str(ROOT), "CURSOR": cursor, "NO_PROXY": "*", "NO_COLOR": "1"}
    found = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )

    assert found.returncode == 0, found.stdout + found.stderr
    assert [] == service.defects()


@pytest.mark.timeout(180)
def test_schemathesis_finds_nothing(service: Service, tmp_path: Path) -> None:
    """Status, headers and bodies are as described; what is valid is taken, and what is not is refused."""
    search(service, tmp_path, "--max-examples", "10", seconds=150)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", ["1", "2"])
def test_schemathesis_finds_nothing_in_a_long_search(service: Service, tmp_path: Path, seed: str) -> None:
    """Nor in twenty times as many examples."""
    search(service, tmp_path, "--max-examples", "200", "--seed", seed, seconds=1000)
