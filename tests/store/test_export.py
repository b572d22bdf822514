"""The board as a file: `service/store/export.py`, and `scripts/export_board.py` as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.embedded import EmbeddedError, start_pair
from service.embedded.programs import Programs
from service.errors import Unavailable
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store import export
from service.store.export import open_snapshot
from service.store.mirror import Mirror
from tests.embedded.processes import wait_until
from tests.ranking.equality import assert_mirror_equals_ledger
from tests.store import import_program
from tests.store.import_program import counts, environment
from tests.store.imports import Users, store, stored

PROGRAM = import_program.PROGRAM.with_name("export_board.py")
COMMAND: list[str | Path] = [sys.executable, PROGRAM]
HEADER = "position,rank,id,username,rating"


def run(settings: Settings | None, *arguments: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run the program to its end."""
    command = [*COMMAND, *arguments]
    return subprocess.run(command, env=environment(settings), check=False, **{"capture_output": True, **options})  # type: ignore[call-overload,no-any-return]


def expected(users: Users) -> list[str]:
    """The reference: the lines of an export, counted one by one."""
    order = sorted(users.items(), key=lambda user: (-user[1][1], user[1][0].encode()))
    ratings = [rating for _, rating in users.values()]
    return [
        f"{position},{1 + sum(other > rating for other in ratings)},{user_id},{name},{rating}"
        for position, (user_id, (name, rating)) in enumerate(order, start=1)
    ]


def many(count: int) -> Users:
    """Users with ties."""
    return {f"u{number}": (f"Name-{number * 7919 % count}", 1000 + number % 37) for number in range(count)}


NAMES = st.text("aAbBzZ09_.-", min_size=3, max_size=5)
BOARDS = st.dictionaries(
    st.text("aZ9_.:-", min_size=1, max_size=4), st.tuples(NAMES, st.sampled_from([100, 1000, 1001, 5000])), max_size=12
).filter(lambda users: len({name.lower() for name, _ in users.values()}) == len(users))


@pytest.mark.timeout(180)
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(users=BOARDS, batch=st.integers(1, 5))
def test_an_export_is_the_board_counted_one_by_one(database_url: str, users: Users, batch: int) -> None:
    """Whatever the batches cut, ties included: order, positions and ranks are those of the definition."""
    store(database_url, users)
    with pytest.MonkeyPatch.context() as patch, open_snapshot(database_url) as snapshot:
        patch.setattr(export, "BATCH_ROWS", batch)
        rows = [row for rows in snapshot.rows() for row in rows]

        assert len(users) == snapshot.users
        assert expected(users) == [f"{row.position},{row.rank},{row.id},{row.username},{row.rating}" for row in rows]


def test_an_export_while_others_write_is_of_one_instant(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points go from user to user, and users come and go by twos: every export has the points and the number right."""
    monkeypatch.setattr(export, "BATCH_ROWS", 7)
    store(database_url, {f"u{number}": (f"name-{number}", 1000) for number in range(200)})
    stop, written = threading.Event(), [0]

    def write() -> None:
        numbers = random.Random(5)
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not stop.is_set():
                one, other = numbers.sample(range(200), 2)
                connection.execute(
                    "UPDATE users SET rating = rating + CASE id WHEN %(one)s THEN 1 ELSE -1 END"
                    " WHERE id IN (%(one)s, %(other)s)",
                    {"one": f"u{one}", "other": f"u{other}"},
                )
                connection.execute(
                    "INSERT INTO users (id, username, rating) VALUES ('x', 'guest-x', 1000), ('y', 'guest-y', 1000)"
                    if written[0] % 2
                    else "DELETE FROM users WHERE id IN ('x', 'y')"
                )
                written[0] += 1

    writing = threading.Thread(target=write)
    writing.start()
    try:
        for _ in range(10):
            before = written[0]
            with open_snapshot(database_url) as snapshot:
                rows = []
                for batch in snapshot.rows():
                    rows += batch
                    # Something has changed since the snapshot, at the beginning and at the end of the board.
                    wait_until(lambda before=before: written[0] > before + 2)  # type: ignore[misc]

            assert snapshot.users * 1000 == sum(row.rating for row in rows)
            assert list(range(1, snapshot.users + 1)) == [row.position for row in rows]
            assert snapshot.users == len({row.id for row in rows})
    finally:
        stop.set()
        writing.join()


async def test_an_export_does_not_hold_the_mirror_up(settings: Settings, mirror: Mirror) -> None:
    """
    While a snapshot is open the tail settles what is committed after it: below the horizon, checkpoint and all.

    Its transaction has no id. One that wrote would hold the checkpoint back until it ends.
    """
    store(settings.database_url, many(50))
    tailer = Tailer(settings.database_url, mirror)
    await tailer.catch_up()
    with open_snapshot(settings.database_url) as snapshot:
        rows = snapshot.rows()
        next(rows)
        with psycopg.connect(settings.database_url, autocommit=True) as connection:
            ((xact,),) = connection.execute(
                "UPDATE users SET rating = 4000 WHERE id = 'u1' RETURNING xact::text"
            ).fetchall()
        await tailer.catch_up()
        state = await mirror.state()

        assert state is not None
        assert int(state.checkpoint.xact) > int(xact)
        await assert_mirror_equals_ledger(settings)


def test_an_export_that_is_not_read_ends(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot whose rows nobody takes is ended by the server, because the vacuum waits for it."""
    monkeypatch.setattr(export, "BATCH_ROWS", 10)
    monkeypatch.setitem(export._SETTINGS, "idle_in_transaction_session_timeout", "50ms")
    store(database_url, many(50))
    with open_snapshot(database_url) as snapshot:
        rows = snapshot.rows()
        next(rows)
        with psycopg.connect(database_url, autocommit=True) as other:
            wait_until(lambda: not _snapshots(other))
        with pytest.raises(Unavailable):
            next(rows)


def _snapshots(connection: psycopg.Connection) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()"
    return int((connection.execute(query).fetchone() or (0,))[0])


def test_what_is_exported_can_be_imported(settings: Settings, tmp_path: Path) -> None:
    """The file of one board makes another database hold it, ids and all; over its own it changes nothing."""
    users = many(12_000)
    store(settings.database_url, users)
    path = tmp_path / "board.csv"
    done = run(settings, "--output", path, "--json")

    assert (0, b"") == (done.returncode, done.stdout)
    assert [HEADER, *expected(users)[:20]] == path.read_text().splitlines()[:21]
    assert 12_001 == len(path.read_text().splitlines())
    report = json.loads(done.stderr)
    assert (12_000, str(path), None) == (report["users"], report["output"], report["error"])
    assert report["as_of"].endswith("Z")

    before = stored(settings.database_url)
    assert (0, 0, 12_000, 0) == counts(import_program.run(settings, path, "--json"))
    assert before == stored(settings.database_url)

    store(settings.database_url, {})
    assert (12_000, 0, 0, 0) == counts(import_program.run(settings, path, "--json"))
    assert users == {user_id: user[:2] for user_id, user in stored(settings.database_url).items()}
    asyncio.run(assert_mirror_equals_ledger(settings))


def test_standard_output_carries_the_board_alone(settings: Settings) -> None:
    """Progress and the report are on standard error; Redis is not asked."""
    store(settings.database_url, many(30))
    variables = {name: value for name, value in environment(settings).items() if name != "REDIS_URL"}
    done = subprocess.run(COMMAND, capture_output=True, env=variables, check=False)

    assert [HEADER, *expected(many(30))] == done.stdout.decode().splitlines()
    progress, report = done.stderr.decode().splitlines()
    assert progress.startswith("Exported: 30 of 30 users, ")
    assert report.startswith("30 users as of ")


def test_a_terminal_shows_a_bar(settings: Settings, tmp_path: Path) -> None:
    """On a terminal there is a progress bar."""
    store(settings.database_url, many(30))
    terminal, theirs = pty.openpty()
    with closing(os.fdopen(theirs, "wb", buffering=0)), closing(os.fdopen(terminal, "rb", buffering=0)) as shown:
        done = run(
            settings, "--output", tmp_path / "board.csv", capture_output=False, stderr=theirs, stdout=subprocess.DEVNULL
        )
        assert 0 == done.returncode
        assert "━".encode() in shown.read(100_000)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    """A file of an earlier export, which is still itself, and alone, after the test."""
    path = tmp_path / "board.csv"
    path.write_text("earlier")
    yield path

    assert "earlier" == path.read_text()
    assert [path] == list(tmp_path.iterdir())


def test_a_store_that_is_away_is_told(settings: Settings, kept: Path) -> None:
    """Exit code 5, one sentence that ends in the driver's words, and the file as it was."""
    away = Settings(database_url="postgresql://127.0.0.1:1/x", redis_url=settings.redis_url)
    done = run(away, "--output", kept)

    assert (5, b"") == (done.returncode, done.stdout)
    assert re.fullmatch(rb"export_board\.py: Postgres cannot be reached: .*Connection refused.*\n", done.stderr)


ENDED_HALFWAY = """
import sys
sys.path.insert(0, {folder!r})
import psycopg
from service.arguments import parse
from service.commands import export_board
from service.store import export

def end_all_sessions(rows):
    with psycopg.connect({url!r}, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                      " WHERE datname = current_database() AND pid <> pg_backend_pid()")
    return ""

export.BATCH_ROWS, export_board.text = 10, end_all_sessions
sys.exit(export_board.run(parse("export", sys.argv[1:], program="export_board.py")))
"""


def test_an_export_that_breaks_off_leaves_the_file(settings: Settings, kept: Path) -> None:
    """A session that is ended in the middle: exit code 5, and no half a board under the name of a whole one."""
    store(settings.database_url, many(30))
    program = ENDED_HALFWAY.format(folder=str(PROGRAM.parents[1]), url=settings.database_url)
    done = subprocess.run(
        [sys.executable, "-c", program, "--output", kept], env=environment(settings), capture_output=True, check=False
    )

    assert 5 == done.returncode, done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--output", "/dev/null"), "is no regular file"),
        (("--output", "/dev/stdout"), "/dev/stdout is no regular file"),
        (("--output", "/nowhere/board.csv"), "/nowhere/board.csv cannot be written"),
        (("--unknown",), "unrecognized arguments"),
        (("--data", "/nowhere"), "there is no directory /nowhere"),
    ],
)
def test_what_cannot_be_used_is_told(settings: Settings, arguments: tuple[str, ...], sentence: str) -> None:
    """Exit code 2 and one sentence."""
    done = run(settings, *arguments)

    assert (2, b"") == (done.returncode, done.stdout)
    assert sentence in done.stderr.decode()
    assert Path("/dev/null").is_char_device()


def test_whoever_stops_reading_is_no_defect(settings: Settings) -> None:
    """Behind `head`: exit code 3, one sentence, no traceback."""
    store(settings.database_url, many(12_000))
    with subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(settings)
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert HEADER == program.stdout.readline().decode().strip()
        program.stdout.close()
        errors = program.stderr.read()

    assert 3 == program.returncode
    assert b"export_board.py: Standard output is not read any more.\n" == errors


def test_the_file_is_as_readable_as_the_one_before(settings: Settings, tmp_path: Path) -> None:
    """A new file has the mode that the umask leaves, a replaced one keeps its own; a link goes on leading to it."""
    path, link = tmp_path / "board.csv", tmp_path / "link.csv"
    link.symlink_to(path)

    assert 0 == run(settings, "--output", link, umask=0o027).returncode
    assert (0o640, True) == (path.stat().st_mode & 0o777, link.is_symlink())
    path.chmod(0o604)
    assert 0 == run(settings, "--output", path).returncode
    assert 0o604 == path.stat().st_mode & 0o777


def test_an_embedded_pair_is_used_or_started(tmp_path: Path) -> None:
    """`--data` reads from a pair that runs, and starts one that does not; a database without our schema is told."""
    try:
        Programs.find()
    except EmbeddedError as error:
        pytest.skip(str(error))
    data = tmp_path / "data"
    (tmp_path / "list.csv").write_text("username,rating\nann,1500\n")
    with start_pair(data):
        done = run(None, "--data", data)
        assert (1, b"") == (done.returncode, done.stdout)
        assert 0 == import_program.run(None, tmp_path / "list.csv", "--data", data).returncode
        running = run(None, "--data", data)
    stopped = run(None, "--data", data)

    assert running.stdout == stopped.stdout
    assert (0, 0, 2) == (running.returncode, stopped.returncode, len(stopped.stdout.splitlines()))
