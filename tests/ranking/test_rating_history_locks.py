"""The history of ratings beside other sessions: which one waits, how long, and what a deletion leaves behind."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import date
from types import SimpleNamespace

import psycopg
import pytest

from service.errors import Unavailable
from service.ranking import rating_history as writing
from service.ranking.drift import Report
from service.ranking.rating_history import record
from service.ranking.reconcile import LockBusy, admitted
from service.store import idempotency, rating_history
from service.store.feed import Feed
from service.store.rating_history import RatingHistory, Step
from tests.embedded.processes import wait_until
from tests.ranking.reconciling import Session
from tests.ranking.recording import NOON, create, past, run, write_all
from tests.servers.proxy import Proxy, before_postgres


def lock_of(ledger: Session, name: str) -> int:
    """Which of the locks keeps the deletion of a user out."""
    ((lock,),) = ledger.execute("SELECT hashtext(%s) & 15", (name,)).fetchall()
    return int(lock)


async def test_nobody_waits_for_it_and_it_waits_for_nobody(database_url: str, ledger: Session) -> None:
    """Neither for those who have locked users to rate them, nor does it have a transaction that others wait for."""
    create(ledger, ("one", 1000), ("two", 1001), ("three", 1002))
    with psycopg.connect(database_url) as rating:
        rating.execute("SELECT FROM users FOR UPDATE")
        async with Feed(database_url) as feed:
            history = RatingHistory(feed, step_users=2)
            async with history.look(NOON.date(), since=None) as snapshot:
                async for batch in snapshot.batches:
                    steps = deque(batch)
                    ((xid, xmin, locks),) = ledger.execute(
                        "SELECT backend_xid, backend_xmin, (SELECT count(*) FROM pg_locks l WHERE l.pid = a.pid)"
                        " FROM pg_stat_activity a WHERE pid = %s",
                        (feed.session.info.backend_pid,),
                    ).fetchall()
                    assert (None, None, 0) == (xid, xmin, locks)
                    while steps:
                        await history.write(NOON.date(), steps)
    assert 3 == len(past(ledger))


@pytest.mark.parametrize("created_again", [False, True])
async def test_whoever_goes_between_look_and_write_has_no_row(
    database_url: str, ledger: Session, created_again: bool
) -> None:
    """Nor has a user who is created under that id; their own history begins with the next run."""
    create(ledger, ("one", 1000), ("two", 1001))
    async with Feed(database_url) as feed:
        history = RatingHistory(feed)
        async with history.look(NOON.date(), since=None) as snapshot:
            ledger.execute("DELETE FROM users WHERE id = 'one'")
            if created_again:
                create(ledger, ("one", 1000))
            await write_all(history, snapshot, NOON.date())

    assert {"two"} == {user for user, _ in past(ledger)}
    await run(database_url, NOON)
    assert (2 if created_again else 1) == len(past(ledger))


def test_a_deletion_waits_for_rows_that_are_being_written(database_url: str, ledger: Session) -> None:
    """And takes them along, though they were not committed when it began."""
    create(ledger, ("one", 1000))
    with psycopg.connect(database_url) as writer:
        writer.execute(rating_history._SQL["shut_out"], {"lock": lock_of(ledger, "one")})
        writer.execute("INSERT INTO rating_history VALUES ('2026-03-01', 1, 1, 1000, 'one')")
        deleting = threading.Thread(target=lambda: ledger.execute("DELETE FROM users WHERE id = 'one'"))
        deleting.start()
        wait_until(lambda: _waits(database_url))
        writer.commit()
    deleting.join()

    assert {} == past(ledger)


def _waits(url: str) -> bool:
    with psycopg.connect(url) as session:
        return bool(session.execute("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchall())


async def test_a_deletion_under_way_is_waited_for(database_url: str, ledger: Session) -> None:
    """Its user has no row once it has ended."""
    create(ledger, ("one", 1000), ("two", 1001))
    with psycopg.connect(database_url) as deleting:
        deleting.execute("DELETE FROM users WHERE id = 'one'")
        running = asyncio.create_task(run(database_url, NOON))
        async with asyncio.timeout(10):
            while not await asyncio.to_thread(_waits, database_url):
                await asyncio.sleep(0.01)
        assert {} == past(ledger)
        deleting.commit()
    await running

    assert {"two"} == {user for user, _ in past(ledger)}


async def test_a_deletion_that_goes_on_is_not_waited_for(
    database_url: str, ledger: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run gives up, and deletions of others have waited for a moment only."""
    monkeypatch.setattr(rating_history, "_TRIES", 2)
    create(ledger, ("one", 1000), ("two", 1001))
    with psycopg.connect(database_url) as deleting:
        deleting.execute("DELETE FROM users WHERE id = 'one'")
        with pytest.raises(Unavailable, match="on and on"):
            await run(database_url, NOON)
        ledger.execute("SET lock_timeout = '100ms'")
        ledger.execute("DELETE FROM users WHERE id = 'two'")
    assert {} == past(ledger)


async def test_no_write_waits_for_a_lock_for_100_ms(database_url: str, ledger: Session) -> None:
    """Neither a deletion nor a rating, whichever user's, while the rows of a day are written."""
    ledger.execute(
        "INSERT INTO users (id, username, rating) SELECT 'u' || n, 'user-' || n, 100 + n % 4900"
        " FROM generate_series(1, 20000) n"
    )
    over = threading.Event()

    def change() -> int:
        with psycopg.connect(database_url, autocommit=True, options="-c lock_timeout=100ms") as session:
            for number in range(1, 20_001):
                statement = "DELETE FROM users" if number % 2 else "UPDATE users SET rating = 1500"
                session.execute(f"{statement} WHERE id = 'u{number}'")
                if over.is_set():
                    return number
        return 20_000

    changing = asyncio.create_task(asyncio.to_thread(change))
    report = Report()
    try:
        async with Feed(database_url) as feed:
            await record(RatingHistory(feed), report, source="a", now=NOON)
    finally:
        over.set()
    changed = await changing

    assert changed > 100
    assert 20_000 - changed <= report.history_rows <= 20_000
    ((strangers,),) = ledger.execute(
        "SELECT count(*) FROM rating_history h WHERE NOT EXISTS (SELECT FROM users u WHERE u.id = h.user_id)"
    ).fetchall()
    assert 0 == strangers


async def test_a_transaction_writes_as_many_users_as_it_has_time_for(
    database_url: str, ledger: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that share a lock: four thousand users are sixteen transactions if nothing is slow."""
    ledger.execute(
        "INSERT INTO users (id, username, rating) SELECT 'u' || n, 'user-' || n, 1500 FROM generate_series(1, 4000) n"
    )
    turns = 0
    write = RatingHistory.write

    async def counted(self: RatingHistory, day: date, steps: deque[Step]) -> int:
        nonlocal turns
        turns += 1
        return await write(self, day, steps)

    monkeypatch.setattr(RatingHistory, "write", counted)
    report = Report()
    async with Feed(database_url) as feed:
        await record(RatingHistory(feed, step_users=50, hold_seconds=60), report, source="a", now=NOON)

    assert 4000 == report.history_rows
    # What is fetched at a time may end in the middle of those who share one.
    assert 16 <= turns <= 20


def test_a_deletion_never_reads_the_whole_history(database_url: str, ledger: Session) -> None:
    """Nor on a session that planned it while the history was empty, and known to be."""
    create(ledger, *((f"u{number}", 1000 + number) for number in range(10)))
    ledger.execute("VACUUM ANALYZE rating_history")
    with psycopg.connect(database_url, autocommit=True) as session:
        try:
            session.execute("LOAD 'auto_explain'")
        except psycopg.Error:
            pytest.skip("this Postgres does not let our role see plans")
        session.execute("SET auto_explain.log_min_duration = 0")
        session.execute("SET auto_explain.log_nested_statements = on")
        session.execute("SET client_min_messages = log")
        plans: list[str] = []
        session.add_notice_handler(lambda notice: plans.append(notice.message_primary or ""))
        for number in range(10):
            session.execute("DELETE FROM users WHERE id = %s", (f"u{number}",))

    assert 10 == sum("Index" in plan for plan in plans if "Delete on rating_history" in plan)
    assert not [plan for plan in plans if "Seq Scan on rating_history" in plan]


async def _put_away(feed: Feed, proxy: Proxy) -> None:
    async with RatingHistory(feed).look(NOON.date(), since=None):
        proxy.pause()


async def _forget(feed: Feed, proxy: Proxy) -> None:
    proxy.pause()
    await feed.forget()


async def test_a_rest_is_shorter_than_the_silence_that_ends_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a deletion was waited for."""
    rests: list[float] = []
    clock = SimpleNamespace(monotonic=iter([0.0, 18.0, 18.0, 22.5]).__next__)
    monkeypatch.setattr(writing, "time", clock)

    async def sleep(rest: float) -> None:
        rests.append(rest)

    monkeypatch.setattr(writing, "asyncio", SimpleNamespace(sleep=sleep))
    for _ in range(2):
        await writing._rested(asyncio.sleep(0, 1))

    assert pytest.approx([1.0, 0.5]) == rests


@pytest.mark.parametrize("way", [_put_away, _forget])
async def test_a_server_that_hangs_is_not_waited_for(
    database_url: str, monkeypatch: pytest.MonkeyPatch, way: Callable[[Feed, Proxy], Awaitable[None]]
) -> None:
    """Neither at the end of a snapshot, nor while old keys are removed."""
    monkeypatch.setattr(rating_history, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(idempotency, "ANSWER_SECONDS", 0.5)
    async with before_postgres(database_url) as (proxy, url), asyncio.timeout(20), Feed(url) as feed:
        with pytest.raises(Unavailable):
            await way(feed, proxy)
        proxy.heal()


async def test_there_is_one_at_a_time(database_url: str) -> None:
    """It needs the lock of the reconciliation."""
    async with Feed(database_url) as feed, Feed(database_url) as other:
        await admitted(feed)
        with pytest.raises(LockBusy):
            await admitted(other)
