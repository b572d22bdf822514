"""`-` for a file is a standard stream, for every command that takes a file."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from service.rejects import StreamedRejects
from service.settings import Settings
from service.user_csv import Record
from tests.api.serving import ROOT
from tests.store.import_program import environment
from tests.store.imports import store

SCRIPTS = ROOT / "scripts"
LIST = "id,username,rating\\nu1,ann,1500\\nu2,bob,x\\n"
REFUSED = 'line,reason,text\n3,the rating must be a whole number from 100 to 5000,"u2,bob,x"\n'


def _shell(command: str, settings: Settings | None, cwd: Path) -> subprocess.CompletedProcess[str]:
    variables = {**environment(settings), "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    arguments = ["bash", "-c", f"set -o pipefail; {command}"]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, env=variables, cwd=cwd, timeout=50)


def test_an_export_to_a_dash_goes_to_standard_output(settings: Settings, tmp_path: Path) -> None:
    """As without --output; no file of that name is made."""
    store(settings.database_url, {"u1": ("ann", 1500)})
    done = _shell("export_board.py --output - --json", settings, tmp_path)

    assert (0, "position,rank,id,username,rating\n1,1,u1,ann,1500\n") == (done.returncode, done.stdout)
    assert '"output":null' in done.stderr
    assert [] == list(tmp_path.iterdir())


def test_an_import_takes_and_gives_dashes(settings: Settings, tmp_path: Path) -> None:
    """The list on standard input, the refused lines on standard output, the result on standard error."""
    done = _shell(f"printf '{LIST}' | import_users.py - --rejects -", settings, tmp_path)

    assert (3, REFUSED) == (done.returncode, done.stdout)
    assert "1 taken (1 created, 0 updated, 0 unchanged), 1 refused (see standard output)" in done.stderr
    assert [] == list(tmp_path.iterdir())


def test_refused_lines_that_could_not_be_written_are_told_again(settings: Settings, tmp_path: Path) -> None:
    """A full disk is exit code 1 and a sentence; the next import of the list tells all of them."""
    (tmp_path / "list.csv").write_text(LIST.replace("\\n", "\n"))
    first = _shell("import_users.py list.csv --rejects - >/dev/full", settings, tmp_path)
    again = _shell("import_users.py list.csv --rejects -", settings, tmp_path)

    assert 1 == first.returncode
    assert "import_users.py: The refused lines cannot be written: No space left on device.\n" in first.stderr
    assert (3, REFUSED) == (again.returncode, again.stdout)


def test_an_attempt_that_is_repeated_streams_its_lines_once(tmp_path: Path) -> None:
    """A chunk is written when the next one begins; what its earlier attempts refused is forgotten."""
    path = tmp_path / "stream"
    lines = [Record(number, b"text", "reason") for number in range(3)]
    with path.open("wb") as file, StreamedRejects(file.fileno()) as rejects:
        assert not rejects.begin(5)
        assert rejects.begin(0)
        rejects.cut(0)
        rejects.add(lines[0], "kept")
        kept = rejects.size
        rejects.cut(kept)
        assert kept == path.stat().st_size
        rejects.add(lines[1], "lost")
        rejects.cut(kept)
        rejects.add(lines[2], "kept")

    assert ["line,reason,text", "0,kept,text", "2,kept,text"] == path.read_text().splitlines()


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("import_users.py - <&-", "import_users.py: Standard input is closed.\n"),
        (
            "import_users.py /dev/null --rejects - >&-",
            "import_users.py: Standard output is closed, and --rejects - needs it.\n",
        ),
        ("export_board.py --output - >&-", "export_board.py: Standard output is closed.\n"),
        ("benchmark.py report --no-plots --page - >&-", "benchmark.py: standard output is closed.\n"),
        ("configuration.py >&-", "configuration.py: standard output is closed.\n"),
    ],
)
def test_a_closed_stream_that_is_needed_is_told(command: str, sentence: str, tmp_path: Path) -> None:
    """Exit code 2 and a sentence, before any store is asked."""
    done = _shell(command, Settings(database_url="postgresql:///x", redis_url="unix:///none"), tmp_path)

    assert (2, sentence) == (done.returncode, done.stderr)
    assert [] == list(tmp_path.iterdir())


def test_a_report_whose_output_is_closed_is_made(settings: Settings, tmp_path: Path) -> None:
    """The work is done, with its exit code and a sentence; progress does not get into the connections."""
    command = "reconcile.py --incremental >&- ; code=$?; reconcile.py --json 2>&- ; exit $((code + $?))"
    store(settings.database_url, {"u1": ("ann", 1500)})
    done = _shell(command, settings, tmp_path)

    assert 0 == done.returncode
    assert "reconcile.py: standard output is closed, so the result is not printed.\n" in done.stderr
    assert 1 == json.loads(done.stdout)["checked"]


def test_the_page_of_benchmarks_goes_to_standard_output(tmp_path: Path) -> None:
    """Alone: what was done is told on standard error."""
    done = _shell("benchmark.py report --no-plots --page -", None, tmp_path)

    assert (0, "The page is written.\n") == (done.returncode, done.stderr)
    assert (ROOT / "docs/benchmarks.md").read_text() == done.stdout
