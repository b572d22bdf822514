"""The history of ratings: what runs on random days write is what ten lines of Python say, whatever comes between."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service import failpoints
from service.errors import Unavailable
from service.model import HISTORY_DAYS
from service.ranking.rating_history import CLOSING
from tests.ranking.reconciling import Session
from tests.ranking.recording import DAY, NOON, Past, create, past, rate, run

NAMES = ["Ab-c", "ab.d", "Ab_", "abz", "AB0", "zz-"]
"""By bytes in another order than by most languages."""


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
