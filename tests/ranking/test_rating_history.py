"""The history of ratings: what runs on random days write is what ten lines of Python say, whatever comes between."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service import failpoints
from service.errors import Unavailable
from service.model import HISTORY_DAYS
from service.ranking import rating_history as writing
from service.ranking.drift import Report
from service.ranking.rating_history import CLOSING, record
from service.ranking.reconcile import LockBusy, admitted
from service.store import idempotency, rating_history
from service.store.feed import Feed
from service.store.rating_history import RatingHistory, Snapshot, Step
from tests.embedded.processes import wait_until
from tests.ranking.reconciling import Session
from tests.servers.proxy import Proxy, before_postgres

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
NAMES = ["Ab-c", "ab.d", "Ab_", "abz", "AB0", "zz-"]
"""By bytes in another order than by most languages."""

Row = tuple[int, int, int]
Past = dict[tuple[str, date], Row]


async def run(url: str, now: datetime, *, source: str = "a") -> Report:
    """One run of the job at that moment, two users a transaction."""
    report = Report()
    async with Feed(url) as feed:
        await record(RatingHistory(feed, step_users=2, hold_seconds=0), report, source=source, now=now)
    return report


async def write_all(history: RatingHistory, snapshot: Snapshot, day: date) -> None:
    """Write every step of a snapshot."""
    async for batch in snapshot.batches:
        steps = deque(batch)
        while steps:
            await history.write(day, steps)


def lock_of(ledger: Session, name: str) -> int:
    """Which of the locks keeps the deletion of a user out."""
    ((lock,),) = ledger.execute("SELECT hashtext(%s) & 15", (name,)).fetchall()
    return int(lock)


def past(ledger: Session) -> Past:
    """Every row there is."""
    rows = ledger.execute("SELECT user_id, day, rating, rank, position FROM rating_history").fetchall()
    return {(row[0], row[1]): (row[2], row[3], row[4]) for row in rows}


def create(ledger: Session, *users: tuple[str, int]) -> None:
    """Users who are named as their ids."""
    for name, rating in users:
        ledger.execute("INSERT INTO users (id, username, rating) VALUES (%s, %s, %s)", (name, f"{name}--", rating))


def rate(ledger: Session, name: str, rating: int) -> None:
    """Give a user that rating."""
    ledger.execute("UPDATE users SET rating = %s WHERE id = %s", (rating, name))


class Model:
    """The history as the contract has it, over plain dicts."""

    def __init__(self) -> None:
        self.users: dict[str, tuple[str, int]] = {}
        self.past: Past = {}
        self.last: datetime | None = None

    def run(self, now: datetime) -> None:
        """A run at that moment."""
        midnight = datetime.combine(now.date(), datetime.min.time(), UTC)
        is_first = self.last is None or self.last < midnight
        day = now.date() - DAY if is_first and now < midnight + CLOSING else now.date()
        order = sorted(self.users, key=lambda user: (-self.users[user][1], self.users[user][0].encode()))
        for position, user in enumerate(order, 1):
            rating = self.users[user][1]
            before = [self.past[key] for key in sorted(self.past) if key[0] == user and key[1] < day]
            if before and before[-1][0] == rating:
                self.past.pop((user, day), None)
            else:
                rank = 1 + sum(other > rating for _, other in self.users.values())
                self.past[user, day] = (rating, rank, position)
        self.last = now

    def remove(self, user: str) -> None:
        """A deletion."""
        self.users.pop(user, None)
        self.past = {key: row for key, row in self.past.items() if key[0] != user}


changes = st.tuples(
    st.sampled_from(["rate", "rate", "rate", "create", "create", "remove", "rename", "touch"]),
    st.sampled_from(["u0", "u1", "u2", "u3"]),
    st.sampled_from([1000, 1001, 1002]),
    st.sampled_from(NAMES),
)
pauses = st.sampled_from([timedelta(hours=h) for h in (0.2, 0.5, 2, 11, 13, 24, 25, 70)])
steps = st.lists(
    st.tuples(pauses, st.lists(changes, max_size=6), st.sampled_from(["run", "run", "killed", "twice", "foreign"])),
    min_size=2,
    max_size=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=steps)
def test_it_is_what_the_model_says(database_url: str, ledger: Session, steps: list[Any]) -> None:
    """Runs on random days between random changes: killed half way, two at once, or without a snapshot to go by."""
    ledger.execute("DELETE FROM users")
    ledger.execute("TRUNCATE rating_history, rating_snapshots")
    model, now = Model(), NOON
    for number, (pause, changed, how) in enumerate(steps):
        now += pause
        for change in changed:
            _change(ledger, model, change)
        if how == "killed":
            failpoints.arm({"LADDER_TESTING": "true", "LADDER_FAILPOINTS": "history_before_write=raise@2"})
            try:
                asyncio.run(run(database_url, now))
            except Unavailable:
                pass
            finally:
                failpoints.arm({})
        source = f"b{number}" if how == "foreign" else "a"
        model.run(now)
        if how != "killed" or _last(ledger) != now:
            asyncio.run(_runs(database_url, now, source, 2 if how == "twice" else 1))

        assert model.past == past(ledger)


def _last(ledger: Session) -> datetime | None:
    ((last,),) = ledger.execute("SELECT max(taken_at) FROM rating_snapshots").fetchall()
    return last if isinstance(last, datetime) else None


async def _runs(url: str, now: datetime, source: str, times: int) -> None:
    await asyncio.gather(*(run(url, now, source=source) for _ in range(times)))


def _change(ledger: Session, model: Model, change: tuple[str, str, int, str]) -> None:
    what, user, rating, name = change
    is_free = name.lower() not in {name.lower() for name, _ in model.users.values()}
    there = model.users.get(user)
    if what == "create" and not there and is_free:
        ledger.execute("INSERT INTO users (id, username, rating) VALUES (%s, %s, %s)", (user, name, rating))
        model.users[user] = (name, rating)
    elif what == "remove" and there:
        ledger.execute("DELETE FROM users WHERE id = %s", (user,))
        model.remove(user)
    elif what == "rename" and there and is_free:
        ledger.execute("UPDATE users SET username = %s WHERE id = %s", (name, user))
        model.users[user] = (name, there[1])
    elif what in ("rate", "touch") and there:
        rating = rating if what == "rate" else there[1]
        rate(ledger, user, rating)
        model.users[user] = (there[0], rating)


async def test_a_killed_run_leaves_no_day_closed(database_url: str, ledger: Session) -> None:
    """What it has written is right; the next run of another day brings the rest."""
    create(ledger, *((f"u{number}", 1000 + number) for number in range(5)))
    failpoints.arm({"LADDER_TESTING": "true", "LADDER_FAILPOINTS": "history_before_write=raise@2"})
    try:
        with pytest.raises(Unavailable):
            await run(database_url, NOON)
    finally:
        failpoints.arm({})

    written = past(ledger)
    everybody = {(f"u{n}", NOON.date()): (1000 + n, 5 - n, 5 - n) for n in range(5)}
    assert written
    assert written.items() < everybody.items()
    report = await run(database_url, NOON + DAY)
    assert ((NOON + DAY).date(), 5 - len(written)) == (report.history_day, report.history_rows)
    left = {user for user, _ in everybody} - {user for user, _ in written}
    assert left == {user for user, day in past(ledger) if day == report.history_day}


async def test_a_second_run_changes_nothing(database_url: str, ledger: Session) -> None:
    """Nor does it count what was right already."""
    create(ledger, ("one", 1000), ("two", 1001))
    first = await run(database_url, NOON)
    rows = ledger.execute("SELECT xmin, * FROM rating_history ORDER BY user_id").fetchall()
    again = await run(database_url, NOON + timedelta(minutes=1))

    assert (2, 0) == (first.history_rows, again.history_rows)
    assert rows == ledger.execute("SELECT xmin, * FROM rating_history ORDER BY user_id").fetchall()


async def test_a_change_that_commits_late_is_not_lost(database_url: str, ledger: Session) -> None:
    """Its time and its transaction are from before the snapshot, its commit from after it."""
    create(ledger, ("early", 1000), ("late", 1000))
    with psycopg.connect(database_url) as slow:
        slow.execute("UPDATE users SET rating = 2000 WHERE id = 'late'")
        rate(ledger, "early", 1500)
        await run(database_url, NOON)
        slow.commit()
    await run(database_url, NOON + DAY)

    assert {("late", (NOON + DAY).date()): (2000, 1, 1)} == {
        key: row for key, row in past(ledger).items() if key[1] > NOON.date()
    }


async def test_a_snapshot_of_another_history_is_not_gone_by(database_url: str, ledger: Session) -> None:
    """It counts other transactions: to it those of this database may all be long past. Then everybody is compared."""
    create(ledger, ("one", 1000))
    ledger.execute(
        "INSERT INTO rating_snapshots (day, taken_at, seconds, snapshot, source)"
        " VALUES (%s, %s, 1, '9000000000:9000000000:', 'lost')",
        ((NOON - DAY).date(), NOON - DAY),
    )
    await run(database_url, NOON)

    assert {("one", NOON.date()): (1000, 1, 1)} == past(ledger)


async def test_old_rows_are_removed_and_no_others(database_url: str, ledger: Session) -> None:
    """In batches; a row that somebody is deleting is left to them, and waited for by nobody."""
    create(ledger, ("one", 1000))
    kept = NOON.date() - timedelta(days=HISTORY_DAYS)
    ledger.execute(
        "INSERT INTO rating_history (day, rank, position, rating, user_id)"
        " SELECT %s::date + n, 1, 1, 1000, 'one' FROM generate_series(-7, 1) n",
        (kept,),
    )
    ledger.execute(
        "INSERT INTO rating_snapshots SELECT %s::date + n, now(), 1, pg_current_snapshot(), 'x'"
        " FROM generate_series(-1, 0) n",
        (kept,),
    )
    with psycopg.connect(database_url) as other:
        other.execute("DELETE FROM rating_history WHERE day = %s", (kept - DAY,))
        report = await run(database_url, NOON)

        assert 6 == report.history_purged
        other.rollback()
    assert {kept - DAY, kept, kept + DAY} == {day for _, day in past(ledger)}
    assert [(kept,), (NOON.date(),)] == ledger.execute("SELECT day FROM rating_snapshots ORDER BY day").fetchall()


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
    """Nor has whoever comes under their id; that one has a history of their own from the next run on."""
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
    """Its user is there for whoever looks now, and gone for whoever looks when it has ended."""
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
    """Neither by whoever has done with a snapshot, nor by whoever removes old keys."""
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
