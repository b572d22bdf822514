"""No command takes more than a tenth of its users from a board unless that was said to be meant."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
import redis

from service.commands.consent import board_name
from service.ranking.repair import NotSafe, Terms
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store.mirror import Mirror
from tests.ranking.equality import assert_mirror_equals_ledger
from tests.ranking.reconciling import BOARD, Session, bypassing, everything, insert, reconcile
from tests.ranking.test_reconcile_script import PROGRAM, environment, report, run
from tests.store import import_program

COUNT = 50


@pytest.fixture
async def loaded(ledger: Session, settings: Settings, mirror: Mirror) -> None:
    """A board of fifty users."""
    insert(ledger, COUNT)
    await Tailer(settings.database_url, mirror).catch_up()


@pytest.fixture
def other(settings: Settings, stores: Any) -> Iterator[Settings]:
    """The same board with another, empty database."""
    name = stores.create(stores.template)
    yield msgspec.structs.replace(settings, database_url=stores.url(name))
    stores.drop(name)


def _refused(settings: Settings, board: redis.Redis, *arguments: str) -> str:
    """Run a command that must change nothing; returns what it said."""
    before = everything(board)
    done = run(settings, *arguments)

    assert (6, b"") == (done.returncode, done.stdout)
    assert before == everything(board)
    return done.stderr.decode()


@pytest.mark.usefixtures("loaded")
async def test_an_empty_database_does_not_replace_a_board(other: Settings, board: redis.Redis) -> None:
    """It says which stores these are, and how many users are in each; --yes says that it is meant."""
    said = _refused(other, board, "--incremental", "--force")

    assert re.search(
        r"the board at \S+ \(database 0\) has 50 users, the database ladder_test_\w+ at \S+:\d+ has 0, and", said
    )
    assert said.endswith("; the board would lose them, so this needs --yes.\n")
    assert 0 == run(other, "--incremental", "--force", "--yes").returncode
    await assert_mirror_equals_ledger(other)


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("arguments", [("--full", "--force"), ("--full",), ("--rebase",)], ids=" ".join)
async def test_an_emptied_database_does_not_empty_its_board(
    arguments: tuple[str, ...], settings: Settings, ledger: Session, board: redis.Redis
) -> None:
    """Not even a board so small that a few repairs are made unasked; and its history goes on."""
    bypassing(ledger, "DELETE FROM users")
    history = ledger.execute("SELECT * FROM history").fetchall()

    assert "has 50 users, the database" in _refused(settings, board, *arguments)
    assert history == ledger.execute("SELECT * FROM history").fetchall()
    assert 0 == run(settings, *arguments, "--yes").returncode
    if "--full" in arguments:
        await assert_mirror_equals_ledger(settings)


@pytest.mark.usefixtures("loaded")
async def test_a_later_history_does_not_empty_the_board_of_the_one_before(
    settings: Settings, ledger: Session, board: redis.Redis
) -> None:
    """It may follow without being forced; by an import as well."""
    bypassing(ledger, "DELETE FROM users")
    assert 0 == run(settings, "--rebase", "--yes").returncode
    _refused(settings, board, "--incremental")
    before = everything(board)
    data = b"id,username,rating\nu1,ann,1500\n"
    done = import_program.run(settings, "-", data=data)

    assert 6 == done.returncode
    assert b"so this needs --yes.\n" in done.stderr
    assert before == everything(board)
    assert 0 == import_program.run(settings, "-", "--yes", data=data).returncode
    await assert_mirror_equals_ledger(settings)


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(("others", "code"), [(0, 0), (1, 6)])
async def test_a_tenth_may_go_unasked(
    others: int, code: int, settings: Settings, ledger: Session, board: redis.Redis
) -> None:
    """Five of fifty are a tenth; users that only the database has make up for none."""
    bypassing(ledger, f"DELETE FROM users WHERE id IN (SELECT id FROM users ORDER BY id LIMIT {5 + others})")
    insert(ledger, COUNT, "new")
    said = report(run(settings, "--full", "--force", "--json"))

    assert code == said["exit"]
    assert (COUNT if code else 2 * COUNT - 5) == board.zcard(BOARD)


@pytest.mark.usefixtures("loaded")
def test_other_users_are_a_loss_however_many(other: Settings, board: redis.Redis) -> None:
    """A database of as many users, none of which is on the board."""
    with psycopg.connect(other.database_url, autocommit=True) as session:
        insert(session, COUNT, "new")

    assert "has 50, and 50 users of the board" in _refused(other, board, "--incremental", "--force")


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 6), (b"\n", 6), (b"\x04", 6)])
def test_a_terminal_is_asked(answer: bytes, code: int, other: Settings, board: redis.Redis) -> None:
    """Only yes goes on."""
    terminal, theirs = pty.openpty()
    command: list[str | Path] = [sys.executable, PROGRAM, "--incremental", "--force"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=environment(other)
    ) as program:
        os.close(theirs)
        said = b""
        while b"Go on? [y/N] " not in said:
            said += os.read(terminal, 4096)
        os.write(terminal, answer)
        assert code == program.wait(30)
    os.close(terminal)

    assert (0 if code == 0 else COUNT) == board.zcard(BOARD)


@pytest.mark.usefixtures("loaded")
async def test_users_that_are_lost_after_the_question_are_not_removed(
    settings: Settings, ledger: Session, board: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was agreed to is asked of the pass itself, too."""
    bypassing(ledger, "DELETE FROM users")
    monkeypatch.setattr(
        "tests.ranking.reconciling.Terms", lambda dry_run, force, rewind, **_: Terms(dry_run, force, rewind)
    )
    with pytest.raises(NotSafe, match="more than a tenth"):
        await reconcile(settings, force=True)

    assert COUNT == board.zcard(BOARD)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://user:secret@cache.example/3", "cache.example:6379 (database 3)"),
        ("rediss://:secret@[::1]:6380?db=2", "[::1]:6380 (database 2)"),
        ("unix:///run/redis.sock?db=1", "/run/redis.sock (database 1)"),
        ("unix://:secret@/run/redis.sock", "/run/redis.sock (database 0)"),
    ],
)
def test_a_board_is_named_without_its_password(url: str, name: str) -> None:
    assert name == board_name(url)
