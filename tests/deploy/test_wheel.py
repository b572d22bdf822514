"""An installed Ladder, without a repository beside it, has every command and every file that they need."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.arguments import COMMANDS
from service.embedded import EmbeddedError
from service.embedded.programs import Programs
from service.parent_death import spawn
from tests.api.serving import ROOT, free_port, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel, and borrows the dependencies of this one."""
    pytest.importorskip("hatchling")
    directory = tmp_path_factory.mktemp("installed")
    home = directory / "python"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    wheel = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(directory), str(ROOT)]
    _run([sys.executable, "-m", "pip", "--quiet", *wheel])
    (built,) = directory.glob("*.whl")
    _run(
        [
            sys.executable,
            "-m",
            "pip",
            "--quiet",
            "--python",
            str(python),
            "install",
            "--no-deps",
            "--no-index",
            str(built),
        ]
    )
    site = Path(_run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return site


@pytest.fixture
def ladder(installed: Path) -> str:
    """The program."""
    return str(installed.parents[2] / "bin" / "ladder")


def _run(command: list[str], **variables: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=_environment(**variables))
    assert 0 == done.returncode, done.stderr
    return done.stdout


def _environment(**variables: str) -> dict[str, str]:
    without = ("DATABASE_URL", "REDIS_URL", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if name not in without} | variables


def test_every_file_of_the_package_is_installed(installed: Path) -> None:
    """Statements, scripts, migrations, pages: those of the repository and no others."""
    package, scripts = ROOT / "service", ROOT / "lua"
    expected = _files(package, package) | _files(scripts, ROOT)

    assert {"store/queries.sql", "lua/rank.lua", "api/site/index.html", "benchmark/report.md"} <= expected
    assert expected == _files(installed / "service", installed / "service")


def _files(directory: Path, root: Path) -> set[str]:
    found = (path.relative_to(root) for path in directory.rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in path.parts}


def test_the_program_lists_its_commands(ladder: str) -> None:
    assert set(COMMANDS) <= set(_run([ladder, "--help"]).split())
    assert _run([ladder, "--version"]).startswith("ladder ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(ladder: str, command: str) -> None:
    """Which names no script of a repository that is not there."""
    told = _run([ladder, command, "--help"])

    assert told.startswith(f"usage: ladder {command} ")
    assert "scripts/" not in told


@pytest.fixture
def served(ladder: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """`ladder serve` with stores of its own; the variables that the other commands find them by."""
    try:
        Programs.find()
    except EmbeddedError as error:
        pytest.skip(str(error))
    variables = {"XDG_DATA_HOME": str(tmp_path)}
    command = [ladder, "serve", "--port", str(free_port()), "--workers", "1", "--demo-users", "30"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = spawn(command, death_signal=signal.SIGTERM, env=_environment(**variables), cwd="/", output=output)
    try:
        wait_until(lambda: b"Ladder is ready" in log.read_bytes() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield variables
    finally:
        process.terminate()
        assert 0 == process.wait(30), log.read_text()
    assert (tmp_path / "ladder" / "postgres").is_dir()


def test_an_installed_ladder_serves_reconciles_and_copies(ladder: str, served: dict[str, str], tmp_path: Path) -> None:
    """Every command but the benchmark, over the stores that `ladder serve` started, found without being named."""
    report = json.loads(_run([ladder, "reconcile", "--json"], **served))
    assert (0, 30) == (report["exit"], report["checked"])

    board = tmp_path / "board.csv"
    _run([ladder, "export", "--output", str(board)], **served)
    assert 31 == len(board.read_text().splitlines())
    assert 30 == json.loads(_run([ladder, "import", "--json", str(board)], **served))["unchanged"]


def test_the_benchmark_measures(ladder: str, served: dict[str, str]) -> None:
    """The service, and the bare handler, which is a module of the package."""
    measure = ["http", "--users", "30", "--seconds", "0.5", "--rounds", "1", "--only", "rank", "--workers", "1"]
    result = json.loads(_run([ladder, "benchmark", *measure, "--generator", "built-in", "--json"], **served))

    assert 1 == len(result["operations"][0]["bare"])
