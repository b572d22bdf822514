"""
The history of ratings: a row for each user and day on which their rating has changed, as it was at the end of the day.

A run looks at all users in one instant and writes the day of that instant anew, so the last run of a day stands.
The first run of the hour after midnight writes the day that has ended instead: it is the nearest to its end. A day
without a run has no rows, and what changed on it is seen on the next day that has one. What a run writes depends on
the days before and on the users alone: run twice it changes nothing, and the next run of the day completes one that
was killed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from service.model import HISTORY_DAYS
from service.store.rating_history import PURGE_ROWS, Taken

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from service.ranking.drift import Report
    from service.store.rating_history import RatingHistory

CLOSING = timedelta(hours=1)
"""So long after midnight a run may stand for the day that has ended."""
DEAR_SECONDS = 5.0
REST = 20
"""One that takes longer than that is not repeated on the same day before so many times as long has passed: on the first
day of a big board all users are new, and all their ranks move."""
_DUTY = 0.9
"""Share of the time that is spent writing, as in the comparison."""
_REST_SECONDS = 1.0
"""No rest is longer: the server ends a session that is silent for 5 s, and a write may have waited for longer than that."""


def day_of(now: datetime, last: Taken | None) -> date | None:
    """Return which day a run of this moment writes, UTC; None if the last run was too dear to be repeated so soon."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    # One that seems to be of the future was taken before the clock was set back.
    last = last if last and last.at <= now else None
    if now - midnight < CLOSING and not (last and last.at >= midnight):
        return (midnight - timedelta(days=1)).date()
    if last and last.seconds > DEAR_SECONDS and now - last.at < timedelta(seconds=REST * last.seconds):
        return None
    return midnight.date()


async def record(
    history: RatingHistory,
    report: Report,
    *,
    source: str,
    now: datetime | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """
    Write the day's rows and remove those of 400 days ago; what was done is counted in `report`. O(n log n).

    `source` is the database's history, `now` the moment of the run, Postgres' own unless it is given. Raises
    `Unavailable`; what was written by then is right, and the next run goes on.
    """
    moment, last = await history.now()
    moment = now or moment
    day = day_of(moment, last)
    if day is None:
        return
    report.history_day = day
    began = time.monotonic()
    before = await history.before(day)
    # A snapshot of another history counts other transactions: then everybody is compared with their last row.
    since = before[0] if before is not None and before[1] == source else None
    async with history.look(day, since=since) as snapshot:
        progress(0)
        async for batch in snapshot.batches:
            steps = deque(batch)
            while steps:
                report.history_rows += await _rested(history.write(day, steps))
                progress(report.history_rows)
    await history.close(day, Taken(moment, time.monotonic() - began), instant=snapshot.instant, source=source)
    await _purge(history, report, day - timedelta(days=HISTORY_DAYS))


async def _purge(history: RatingHistory, report: Report, before: date) -> None:
    purged = PURGE_ROWS
    while purged == PURGE_ROWS:
        purged = await _rested(history.purge(before))
        report.history_purged += purged
    await history.purge_snapshots(before)


async def _rested(work: Coroutine[None, None, int]) -> int:
    """Do it, and leave Postgres alone for a while."""
    began = time.monotonic()
    rows = await work
    await asyncio.sleep(min((time.monotonic() - began) * (1 / _DUTY - 1), _REST_SECONDS))
    return rows
