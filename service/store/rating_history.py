"""
The history of ratings as the reconciliation job writes it: looked at in one instant, written in small transactions.

Looking is one read-only transaction whose result the server keeps in a file (a cursor WITH HOLD), so neither the
instant nor the memory is held while the rows are written. All of it runs on the session that has the lock of the
reconciliation: whoever loses that can write no more.
"""

from __future__ import annotations

import time
from asyncio import sleep
from collections import deque
from contextlib import asynccontextmanager, suppress
from datetime import date, datetime
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from psycopg.errors import LockNotAvailable

from service import failpoints, metrics
from service.errors import Unavailable
from service.store.postgres import ANSWER_SECONDS, answering, load_queries, translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from psycopg import AsyncServerCursor
    from psycopg.rows import TupleRow

    from service.store.feed import Feed

STEP_USERS = 250
"""Users of one statement: a few milliseconds."""
HOLD_SECONDS = 0.02
"""How long a transaction goes on with another step: deletions wait for its end, and for no longer than 100 ms even on a
machine on which a step takes ten times as long as usual."""
PURGE_ROWS = 1000
"""Rows that one statement removes: what the deletion of their users may have to wait for, some 10 ms."""
_STEPS = 40
"""What is fetched at a time: some 10,000 users, a megabyte."""
_LOOK_SECONDS = 600.0
_TRIES = 40
_PAUSE_SECONDS = 0.1
_SQL = load_queries(Path(__file__).with_suffix(".sql"))


class Taken(msgspec.Struct, frozen=True):
    """When a snapshot was taken, and how long it took until all of it was written."""

    at: datetime
    seconds: float


class Step(msgspec.Struct, frozen=True):
    """
    Some users at the instant of a snapshot: where those stand whose row is due, and those whose row must go.

    They share the `lock` that keeps deletions out. From `ids` on all of it is Postgres' text of arrays; `undue` is None
    when no row must go.
    """

    lock: int
    users: int
    ids: str
    born: str
    ratings: str
    ranks: str
    positions: str
    undue: str | None


class Snapshot:
    """The users of one instant whose rows of a day are to be written; `instant` is Postgres' text of it."""

    def __init__(self, instant: str, batches: AsyncIterator[list[Step]]) -> None:
        self.instant = instant
        self.batches = batches


class RatingHistory:
    """The history of one database, over a session that has the lock of the reconciliation."""

    def __init__(self, feed: Feed, *, step_users: int = STEP_USERS, hold_seconds: float = HOLD_SECONDS) -> None:
        self._session = feed.session
        self._step_users = step_users
        self._hold_seconds = hold_seconds

    async def now(self) -> tuple[datetime, Taken | None]:
        """Return Postgres' time, and the last snapshot that was written to its end."""
        ((now, taken_at, seconds),) = await self._read("now")
        return now, None if taken_at is None else Taken(taken_at, seconds)

    async def before(self, day: date) -> tuple[str, str] | None:
        """Return the last complete snapshot of an earlier day, and the source of the database that it is of."""
        rows = await self._read("before", day=day)
        return rows[0] if rows else None

    @asynccontextmanager
    async def look(self, day: date, *, since: str | None) -> AsyncIterator[Snapshot]:
        """
        Look at the users who were changed since that snapshot, or at all of them; ranked among all. O(n log n).

        Locks nothing, and has ended when the block begins; its batches may be taken at leisure.
        """
        connection = self._session
        with translated():
            async with connection.cursor(name="due", withhold=True) as cursor:
                try:
                    with metrics.postgres_call("history_look"), answering(connection, _LOOK_SECONDS):
                        async with connection.transaction():
                            await connection.execute(_SQL["look"], prepare=False)
                            ((instant,),) = await (await connection.execute(_SQL["instant"])).fetchall()
                            await cursor.execute(_SQL["due"], {"day": day, "since": since, "step": self._step_users})
                    yield Snapshot(instant, self._batches(cursor))
                finally:
                    # The end of the block around us would ask a server that hangs, and wait for it.
                    with answering(connection, ANSWER_SECONDS):
                        await cursor.close()

    async def _batches(self, cursor: AsyncServerCursor[TupleRow]) -> AsyncIterator[list[Step]]:
        while True:
            with answering(self._session, ANSWER_SECONDS):
                rows = await cursor.fetchmany(_STEPS)
            if not rows:
                return
            yield [Step(*row) for row in rows]

    async def write(self, day: date, steps: deque[Step]) -> int:
        """
        Write the rows of those who are due and remove those of the others; returns how many rows were changed.

        One transaction, with as many of the first steps as share a lock and fit into `hold_seconds`, one at least; these
        are taken from `steps`. Raises `Unavailable` when a deletion that is under way takes longer than some seconds.
        """
        await failpoints.reach("history_before_write")
        with metrics.postgres_call("history_write"), translated():
            for _ in range(_TRIES):
                with suppress(LockNotAvailable), answering(self._session, ANSWER_SECONDS):
                    done, changed = await self._write(day, steps)
                    for _ in range(done):
                        steps.popleft()
                    return changed
                await sleep(_PAUSE_SECONDS)
        message = "a deletion of users goes on and on"
        raise Unavailable(message)

    async def _write(self, day: date, steps: Sequence[Step]) -> tuple[int, int]:
        connection = self._session
        done = changed = 0
        async with connection.transaction():
            lock = steps[0].lock
            await connection.execute(_SQL["shut_out"], {"lock": lock})
            until = time.monotonic() + self._hold_seconds
            for step in takewhile(lambda step: step.lock == lock, steps):
                written = await connection.execute(_SQL["write"], {"day": day, **msgspec.structs.asdict(step)})
                changed += written.rowcount
                if step.undue is not None:
                    withdrawn = await connection.execute(_SQL["withdraw"], {"day": day, "undue": step.undue})
                    changed += withdrawn.rowcount
                done += 1
                if time.monotonic() >= until:
                    break
        return done, changed

    async def close(self, day: date, taken: Taken, *, instant: str, source: str) -> None:
        """Note that all rows of the day are written, and are of that snapshot."""
        await self._execute("close", day=day, taken_at=taken.at, seconds=taken.seconds, snapshot=instant, source=source)

    async def purge(self, before: date) -> int:
        """Remove some of the rows of days before that one; returns how many, fewer than `PURGE_ROWS` at the end."""
        return await self._execute("purge", day=before, limit=PURGE_ROWS)

    async def purge_snapshots(self, before: date) -> None:
        """Forget the snapshots of days before that one."""
        await self._execute("purge_snapshots", day=before)

    async def _read(self, query: str, **parameters: object) -> list[tuple[Any, ...]]:
        with metrics.postgres_call(f"history_{query}"), translated(), answering(self._session, ANSWER_SECONDS):
            return await (await self._session.execute(_SQL[query], parameters)).fetchall()

    async def _execute(self, query: str, **parameters: object) -> int:
        with metrics.postgres_call(f"history_{query}"), translated(), answering(self._session, ANSWER_SECONDS):
            return (await self._session.execute(_SQL[query], parameters)).rowcount
