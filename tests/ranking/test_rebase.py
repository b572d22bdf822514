"""After the restore of a dump: nothing is mirrored before `scripts/reconcile.py --rebase` has been run, then all is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

import psycopg
import pytest
from structlog.testing import capture_logs

from service.app import opened
from service.model import UserId
from service.settings import Settings
from service.store.feed import RECONCILE_LOCK
from tests.faults.readers import until
from tests.ranking.equality import assert_mirror_equals_ledger, ready
from tests.ranking.reconciling import Session, bypassing, insert
from tests.ranking.test_reconcile_script import report, run

USERS, DELETED = 1200, 7


@pytest.fixture
def restored(database_url: str) -> Iterator[Session]:
    """A session on a database whose rows and tombstones name transactions of a cluster that was far ahead."""
    with psycopg.connect(database_url, autocommit=True) as session:
        insert(session, USERS + DELETED)
        session.execute("DELETE FROM users WHERE id IN (SELECT id FROM users LIMIT %s)", (DELETED,))
        bypassing(session, "UPDATE users SET xact = (9000000000 + length(id))::text::xid8")
        session.execute("UPDATE user_tombstones SET xact = '9000000000'")
        yield session


async def test_a_restored_dump_is_mirrored_after_a_rebase(restored: Session, settings: Settings) -> None:
    """Until then Postgres answers and the log says what to do; nobody restarts anything."""
    with capture_logs() as logs:
        async with opened(settings) as ladder:
            await until(lambda: _said(logs))
            written = await ladder.rate(UserId("user900"), 4000)
            assert "pending" == written.placed.outcome
            answer = await ladder.user(UserId("user900"))
            assert ("postgres", 1) == (answer.source, answer.value.standing.rank)

            assert 0 == (await asyncio.to_thread(run, settings, "--rebase")).returncode
            await ready(ladder)
            restored.execute("UPDATE users SET rating = 4500 WHERE id = 'user901'")
            await until(lambda: _ranks_first(ladder))
    await assert_mirror_equals_ledger(settings)


async def test_a_dump_put_back_into_its_own_database_is_a_history_of_its_own(
    database_url: str, settings: Settings
) -> None:
    """Nothing tells it from what it replaced: not its transactions, its versions or its name. Nobody restarts anything."""
    with psycopg.connect(database_url, autocommit=True) as session:
        insert(session, 50)
        async with opened(settings) as ladder:
            await ready(ladder)
            lost = await ladder.rate(UserId("user9"), 4000)
            with session.transaction():
                bypassing(session, "UPDATE users SET rating = 1500, version = 9 WHERE id = 'user9'")
                session.execute("SELECT setval('users_version_seq', 50)")

            assert 0 == (await asyncio.to_thread(run, settings, "--rebase")).returncode
            await until(lambda: _is_equal(settings))
            written = await ladder.rate(UserId("user9"), 2000)
            assert written.user.version > lost.user.version
            await until(lambda: _is_equal(settings))


async def _is_equal(settings: Settings) -> bool:
    try:
        await assert_mirror_equals_ledger(settings)
    except AssertionError:
        return False
    return True


async def _said(logs: Sequence[Mapping[str, object]]) -> bool:
    return any(log["event"] == "mirror.withheld" and "--rebase" in str(log["reason"]) for log in logs)


async def _ranks_first(ladder) -> bool:
    answer = await ladder.user(UserId("user901"))
    return bool(answer.value.standing.rank == 1 and answer.source == "redis")


def test_a_rebase_reports_as_every_mode_does(restored: Session, settings: Settings) -> None:
    """3 for what a dry run finds, 0 when it was done, 3 with --fail-on-drift, 0 when there is nothing to do."""
    ratings = restored.execute("SELECT id, username, rating FROM users ORDER BY id").fetchall()
    dry = report(run(settings, "--rebase", "--dry-run", "--json"))
    done = report(run(settings, "--rebase", "--fail-on-drift", "--json"))
    again = report(run(settings, "--rebase", "--json"))

    assert ("rebase", 3, USERS + DELETED, 0) == (dry["mode"], dry["exit"], dry["remaining"], dry["repaired"])
    assert (3, USERS + DELETED, 0) == (done["exit"], done["repaired"], done["remaining"])
    assert (0, 0) == (again["exit"], again["checked"])
    assert ratings == restored.execute("SELECT id, username, rating FROM users ORDER BY id").fetchall()
    newest = "SELECT count(*) FROM users WHERE xact >= pg_snapshot_xmax(pg_current_snapshot()) OR version <= %s"
    assert 0 == restored.execute(newest, (USERS + DELETED,)).fetchall()[0][0]


def test_a_rebase_waits_for_its_turn(restored: Session, settings: Settings) -> None:
    """4 while another reconciliation is running, and nothing is written."""
    restored.execute("SELECT pg_advisory_lock(%s)", (RECONCILE_LOCK,))

    assert 4 == run(settings, "--rebase").returncode
    assert 0 == run(settings, "--rebase", "--lock-busy-ok").returncode
