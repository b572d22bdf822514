"""What the tests of the history of ratings share: runs of the job, users, and the rows that were written."""

from __future__ import annotations

from collections import deque
from datetime import UTC, date, datetime, timedelta

from service.ranking.drift import Report
from service.ranking.rating_history import record
from service.store.feed import Feed
from service.store.rating_history import RatingHistory, Snapshot
from tests.ranking.reconciling import Session

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)

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
