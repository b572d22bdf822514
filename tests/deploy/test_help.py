"""Every script answers --help at once, on a machine that has a Python and nothing else, and from wherever it is called."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.serving import ROOT

SCRIPTS = [*(ROOT / "scripts").glob("[a-z]*"), *(ROOT / "examples").glob("*.py")]
NAMES = sorted(str(path.relative_to(ROOT)) for path in SCRIPTS)
SECONDS = 10
"""For a process on a busy machine; an installation takes longer."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone holds, without an environment."""
    copy = tmp_path_factory.mktemp("clone") / "ladder"
    for directory in ("scripts", "service", "examples"):
        shutil.copytree(ROOT / directory, copy / directory, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def _answer(command: list[str | Path], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd="/", env=environment, timeout=SECONDS
    )


def _bare(script: Path) -> list[str | Path]:
    """A script in Python is started without anything but the standard library, not even its own directory."""
    base = getattr(sys, "_base_executable", sys.executable)
    return [base, "-S", "-I", script] if script.suffix == ".py" else [script]


@pytest.mark.parametrize("name", NAMES)
def test_help_needs_no_dependencies(checkout: Path, name: str) -> None:
    """Nothing is installed for it."""
    done = _answer([*_bare(checkout / name), "--help"])

    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("usage: ")
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".py")])
def test_a_wrong_argument_is_told_before_anything_is_installed(checkout: Path, name: str) -> None:
    done = _answer([*_bare(checkout / name), "--no-such-option"])

    assert (2, "") == (done.returncode, done.stdout)
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_script_follows_symbolic_links(checkout: Path, name: str, tmp_path: Path) -> None:
    """A link to it, a relative link to that one, and a link to its directory."""
    (tmp_path / "one").symlink_to(checkout / name)
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "all").symlink_to((checkout / name).parent)

    for path in (tmp_path / "two", tmp_path / "all" / Path(name).name):
        done = _answer([path, "--help"])
        assert (0, "") == (done.returncode, done.stderr)


def test_old_interpreters_can_tell_help(checkout: Path) -> None:
    """The command lines are read by Python 3.8 already, which may be what python3 is."""
    old = shutil.which("python3.8")
    if old is None or subprocess.run([old, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip("there is no Python 3.8 here")
    for name in NAMES:
        if name.endswith(".py"):
            assert 0 == _answer([old, "-S", "-I", checkout / name, "--help"]).returncode


def test_every_module_that_the_pages_run_is_there() -> None:
    """As it is printed: by the environment's interpreter, from the repository's root."""
    words = {found for page in PAGES for found in re.findall(r"(\S*python3?) -m (tests\.[a-z_.]+)", page.read_text())}
    running = {
        module: subprocess.Popen([sys.executable, "-m", module, "--help"], cwd=ROOT, stdout=subprocess.DEVNULL)
        for _, module in words
    }

    assert {"tests.nemesis", "tests.mutations", "tests.load.overload", "tests.load.streams"} <= set(running)
    assert {".venv/bin/python"} == {interpreter.lstrip("`(") for interpreter, _ in words}
    assert {0} == {process.wait(50) for process in running.values()}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("scripts/export_board.py", ["--output", ""]),
        ("scripts/export_board.py", ["--data", ""]),
        ("scripts/import_users.py", [""]),
        ("scripts/import_users.py", ["list.csv", "--rejects", ""]),
        ("scripts/benchmark.py", ["rank", "--output", ""]),
    ],
)
def test_an_empty_name_of_a_file_is_refused(checkout: Path, name: str, arguments: list[str]) -> None:
    """It is what a variable leaves that is not set, and would mean the directory of the caller."""
    done = _answer([*_bare(checkout / name), *arguments])

    assert 2 == done.returncode
    assert "must not be empty" in done.stderr
