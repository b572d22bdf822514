"""`scripts/import_users.py` as an operator runs it."""

from __future__ import annotations

import asyncio
import csv
import gzip
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import psycopg
import pytest

from service.embedded import EmbeddedError, running_pair, start_pair
from service.embedded.programs import Programs
from service.settings import Settings
from tests.conftest import Stores
from tests.embedded.processes import wait_until
from tests.ranking.equality import assert_mirror_equals_ledger, mirror_board
from tests.store.import_program import COMMAND, PROGRAM, counts, environment, result, run
from tests.store.imports import store, stored

GOOD = b"id,username,rating\n1,ann,1500\n,bob,1400\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good list."""
    path = tmp_path / "list.csv"
    path.write_bytes(GOOD)
    return path


def test_a_list_is_imported_and_on_the_board(settings: Settings, path: Path) -> None:
    """
    Without any service: the good lines are in Postgres and on the board, the bad ones in the file beside the list,
    exit code 3; the list put right changes what was refused, removes that file, exit code 0.
    """
    store(settings.database_url, {"7": ("cid", 1300)})
    rejects = path.with_name("list.csv.rejects.csv")
    path.write_bytes(GOOD + b"8,CID,1500\n7,cid,1301\n,dee,99\n")
    done = run(settings, path)

    assert 3 == done.returncode
    assert b"3 taken (2 created, 1 updated, 0 unchanged), 2 refused" in done.stdout
    assert [
        ["line", "reason", "text"],
        ["4", "the username belongs to the user 7", "8,CID,1500"],
        ["6", "the rating must be a whole number from 100 to 5000", ",dee,99"],
    ] == list(csv.reader(rejects.read_text().splitlines()))
    asyncio.run(assert_mirror_equals_ledger(settings))

    path.write_bytes(GOOD + b"7,cid,1301\n8,CIDD,1500\n,dee,100\n")
    done = run(settings, path, "--json")

    assert 0 == done.returncode
    assert {
        "created": 2, "updated": 0, "unchanged": 3, "refused": 0, "dry_run": False, "rejects": None, "error": None,
        "resumed_after_line": None,
    } == result(done)  # fmt: skip
    assert not rejects.exists()
    asyncio.run(assert_mirror_equals_ledger(settings))


def test_the_board_of_another_database_is_left_alone(settings: Settings, stores: Stores, tmp_path: Path) -> None:
    """One wrong address must not take it from those who use it; nothing is imported either."""
    path = tmp_path / "list.csv"
    path.write_bytes(GOOD)
    assert 0 == run(settings, path).returncode
    before = mirror_board(settings)
    other = Settings(database_url=stores.url(name := stores.create(stores.template)), redis_url=settings.redis_url)
    try:
        done = run(other, path)
        assert 2 == done.returncode
        assert b"REDIS_URL names the board of another database" in done.stderr
        assert {} == stored(other.database_url)
    finally:
        stores.drop(name)

    assert before == mirror_board(settings)


def test_a_dry_run_says_what_would_happen(settings: Settings, tmp_path: Path) -> None:
    """The counts and the refused lines of the import; users, schema, board and Redis are as before."""
    with psycopg.connect(settings.database_url) as connection:
        connection.execute("DROP TABLE users, schema_migrations")
    path = tmp_path / "list.csv"
    path.write_bytes(GOOD + b"2,Ann,1600\n")
    nowhere = Settings(database_url=settings.database_url, redis_url="unix:///nowhere")
    done = run(nowhere, path, "--dry-run", "--rejects", tmp_path / "refused", "--json")

    assert 3 == done.returncode
    assert (2, 0, 0, 1) == counts(done)
    assert "line 2 has the same username" in (tmp_path / "refused").read_text()
    with psycopg.connect(settings.database_url) as connection:
        assert [(None,)] == connection.execute("SELECT to_regclass('users')").fetchall()


def test_standard_input_is_a_list_too(settings: Settings, tmp_path: Path) -> None:
    """`-` reads standard input, gzipped or not, in chunks; refused lines go to the working directory."""
    lines = b"".join(b"user-%d,%d\n" % (number, 1000 + number % 100) for number in range(12_000))
    done = run(settings, "-", "--json", data=gzip.compress(b"username,rating\n" + lines + b"me,1\n"), cwd=tmp_path)

    assert 3 == done.returncode
    assert (12_000, 0, 0, 1) == counts(done)
    assert ["stdin.rejects.csv"] == [path.name for path in tmp_path.iterdir()]
    run(settings, "-", "--dry-run", data=b"username,rating\nme,1\n", cwd=tmp_path)
    assert {"stdin.rejects.csv", "stdin.dry-run.rejects.csv"} == {path.name for path in tmp_path.iterdir()}
    run(settings, "-", data=b"username,rating\n", cwd=tmp_path)
    assert ["stdin.dry-run.rejects.csv"] == [path.name for path in tmp_path.iterdir()]
    assert 12_000 == len(mirror_board(settings)[0])


def test_what_was_taken_before_a_list_breaks_off_stays(settings: Settings, tmp_path: Path) -> None:
    """A damaged archive: exit code 2, the sentence names the line, and whole chunks before it are committed."""
    path = tmp_path / "list.csv.gz"
    lines = b"".join(b"user-%d,%d\n" % (number, 1000 + number % 100) for number in range(20_000))
    path.write_bytes(gzip.compress(b"username,rating\n" + lines)[:-100])
    done = run(settings, path)

    assert 2 == done.returncode
    assert b"cannot be read after line" in done.stderr
    assert 15_000 == len(stored(settings.database_url))


@pytest.mark.parametrize(
    ("data", "arguments", "sentence"),
    [
        (b"name\nann\n", (), "the header id,username,rating"),
        (GOOD, ("--rejects", "/nowhere/refused.csv"), "/nowhere/refused.csv cannot be written"),
        (GOOD, ("--rejects", "list.csv"), "list.csv is the list itself"),
        (GOOD, ("--unknown",), "unrecognized arguments"),
        (None, (), "list.csv cannot be read: No such file or directory"),
    ],
)
def test_what_cannot_be_used_is_told(
    settings: Settings, tmp_path: Path, data: bytes | None, arguments: tuple[str, ...], sentence: str
) -> None:
    """Exit code 2, one sentence on standard error, nothing imported, and the list as it was."""
    path = tmp_path / "list.csv"
    if data is not None:
        path.write_bytes(data)
    done = run(settings, "list.csv", *arguments, cwd=tmp_path)

    assert (2, b"") == (done.returncode, done.stdout)
    assert sentence in done.stderr.decode()
    assert {} == stored(settings.database_url)
    assert data is None or data == path.read_bytes()


def test_a_file_that_cannot_be_read_is_not_taken_for_refused_lines(settings: Settings, tmp_path: Path) -> None:
    """As on a broken disk: what cannot be read is the list."""
    memory = Path("/proc/self/mem")
    if not memory.exists():
        pytest.skip("needs /proc")
    done = run(settings, str(memory), "--rejects", "refused.csv", cwd=tmp_path)

    assert (2, b"") == (done.returncode, done.stdout)
    assert b"the file cannot be read (Input/output error)" in done.stderr


@pytest.mark.parametrize("store_away", ["database_url", "redis_url"])
def test_a_store_that_is_away_is_told(settings: Settings, path: Path, store_away: str) -> None:
    """Exit code 5 before anything is changed, also as JSON."""
    away = {"database_url": "postgresql://127.0.0.1:1/x", "redis_url": "redis://127.0.0.1:1"}
    done = run(msgspec.structs.replace(settings, **{store_away: away[store_away]}), path, "--json")

    assert 5 == done.returncode
    assert (0, 0, 0, 0) == counts(done)
    assert b"cannot be" in done.stderr
    assert {} == stored(settings.database_url)


def test_one_store_is_not_enough(settings: Settings, path: Path) -> None:
    """With only one of the two variables: exit code 2, and the other one's name."""
    only = {name: value for name, value in environment(settings).items() if name != "REDIS_URL"}
    done = subprocess.run([*COMMAND, path], capture_output=True, env=only, check=False)

    assert 2 == done.returncode
    assert b"REDIS_URL is not set" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_import_keeps_what_is_committed(settings: Settings, number: signal.Signals) -> None:
    """A signal while the list is still coming: exit code 130, no traceback, and the first chunk is there."""
    with subprocess.Popen(
        [*COMMAND, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(settings),
        cwd=tempfile.gettempdir(),
    ) as program:  # fmt: skip
        assert program.stdin is not None
        program.stdin.write(b"username,rating\n" + b"".join(b"user-%d,1500\n" % line for line in range(6000)))
        program.stdin.flush()
        wait_until(lambda: len(stored(settings.database_url)) == 5000)
        program.send_signal(number)
        out, err = program.communicate()

    assert 130 == program.returncode
    assert b"5,000 created" in out
    assert b"import_users.py: Interrupted.\n" == err
    assert 5000 == len(stored(settings.database_url))


def test_a_terminal_shows_a_bar(settings: Settings, path: Path) -> None:
    """On a terminal there is a progress bar, on standard error; piped there are plain lines."""
    terminal, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, path], stdout=subprocess.PIPE, stderr=theirs,
        env={**environment(settings), "TERM": "xterm", "COLUMNS": "100"},
    ) as program:  # fmt: skip
        os.close(theirs)
        shown = b"".join(_read(terminal)).decode()
        assert program.stdout is not None
        assert b"2 taken" in program.stdout.read()
    plain = run(settings, path).stderr

    assert "━" in shown
    assert "3 of 3 lines" in shown
    assert re.fullmatch(
        rb"Checked: 0 MiB, 3 lines \(100%\)\nUsers: 3 of 3 lines, [0-9,]+ lines/s, 0 s left \(100%\)\nBoard: 2 users\n",
        plain,
    )


def _read(terminal: int) -> Iterator[bytes]:
    with closing(os.fdopen(terminal, "rb", buffering=0)) as file:
        while True:
            try:
                data = file.read(4096)
            except OSError:  # how Linux says that nobody has the other end any more
                return
            if not data:
                return
            yield data


def test_an_embedded_pair_is_used_or_started(path: Path, tmp_path: Path) -> None:
    """`--data` starts a pair that does not run, and stops it; one that runs is used, and goes on running."""
    try:
        Programs.find()
    except EmbeddedError as error:
        pytest.skip(str(error))
    data = tmp_path / "data"

    assert 2 == run(None, path, "--data", data, "--dry-run").returncode
    assert not data.exists()
    assert (2, 0, 0, 0) == counts(run(None, path, "--data", data, "--json"))
    assert running_pair(data) is None
    with start_pair(data) as pair:
        assert (0, 0, 2, 0) == counts(run(None, path, "--data", data, "--json"))
        assert pair == running_pair(data)


def test_the_script_finds_its_environment(tmp_path: Path) -> None:
    """Started by another Python, from anywhere, it goes on in the project's environment."""
    if not (PROGRAM.parents[1] / ".venv").exists():
        pytest.skip("there is no .venv, as in a container image")
    other = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run([other, PROGRAM, "--help"], capture_output=True, cwd=tmp_path, check=False)

    assert (0, b"") == (done.returncode, done.stderr)
    assert b"exit codes:" in done.stdout
