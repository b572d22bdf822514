"""Every program ends at once with exit code 2 and the same sentence when a store's variable is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.serving import ROOT, free_port

LIST = "id,username,rating\nada,Ada,1500\n"
PROGRAMS = {
    "service": ["-m", "service"],
    "server": ["-m", "service.launch", "--port", "PORT"],
    "migrate": ["scripts/migrate.py"],
    "reconcile": ["scripts/reconcile.py"],
    "incremental": ["scripts/reconcile.py", "--incremental"],
    "import": ["scripts/import_users.py", "LIST"],
    "export": ["scripts/export_board.py"],
}
ASK_REDIS = ("service", "server", "reconcile", "incremental", "import")


def run(program: str, folder: Path, database_url: str, redis_url: str) -> subprocess.CompletedProcess[str]:
    """Run a program with these variables and no others of its own."""
    (folder / "list.csv").write_text(LIST)
    port = str(free_port())
    words = {"LIST": str(folder / "list.csv"), "PORT": port}
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")},
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "PORT": port,
        "WORKERS": "1",
    }
    command = [sys.executable, *(words.get(word, word) for word in PROGRAMS[program])]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=20)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_slip_in_the_url_of_postgres_ends_every_program(program: str, tmp_path: Path) -> None:
    """With the sentence of the settings, and no piece of the password."""
    done = run(program, tmp_path, "postgresql://u:ge@heim@127.0.0.1:1/x", "redis://127.0.0.1:1")

    assert 2 == done.returncode, done.stderr
    assert done.stderr.endswith("DATABASE_URL must have @ written as %40 in a user name or password.\n")
    assert "heim" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_slip_in_the_url_of_redis_ends_every_program(program: str, tmp_path: Path) -> None:
    """Also those that do not ask Redis: the next program would."""
    done = run(program, tmp_path, "postgresql://u@127.0.0.1:1/x", "redis://:ge#heim@127.0.0.1:1/0")

    assert 2 == done.returncode, done.stderr
    assert done.stderr.endswith("REDIS_URL must have # written as %23 in a password or elsewhere.\n")
    assert "heim" not in done.stdout + done.stderr


@pytest.mark.parametrize("program", ASK_REDIS)
def test_a_database_that_redis_does_not_have_ends_every_program(
    program: str, tmp_path: Path, database_url: str, redis_url: str
) -> None:
    """Which only the server can tell."""
    done = run(program, tmp_path, database_url, f"{redis_url.partition('?')[0]}?db=99999")

    assert 2 == done.returncode, done.stderr
    assert done.stderr.endswith("REDIS_URL names a database that this Redis does not have: DB index is out of range.\n")
