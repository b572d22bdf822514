"""
What the mirror is fed from: Postgres read by its file's pages for a load, and by transaction for the tail.

Runs on a connection of its own, which also holds the advisory lock that makes this process the one
that feeds. Losing the lock is harmless: every batch is guarded by a token in Redis.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from service import metrics
from service.errors import LadderError, StoreBug
from service.model import Change, Checkpoint, Version
from service.store import idempotency
from service.store.mirror import Refused
from service.store.postgres import (
    ANSWER_SECONDS,
    QUERIES,
    UNIDENTIFIED,
    Connection,
    answering,
    identify,
    translated,
)
from service.store.session import Session, connecting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any, Self

    from psycopg.rows import TupleRow

    from service.model import UserId

LOCK = 0x4C61_6464_6572_0002  # "Ladder", 2
RECONCILE_LOCK = 0x4C61_6464_6572_0003
_UNLOCK_SECONDS = 1.0


class Feed:
    """
    A session of its own on the primary; use as an async context manager.

    The server ends it after 5 s of silence, so that a paused process cannot keep the lock from others.
    """

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        session = Session(self._database_url, idle_session_timeout="5s")
        with translated():
            with connecting():
                connection = await Connection.connect(
                    self._database_url, autocommit=True, prepare_threshold=2, **session.arguments
                )
            await connection.settle(session)
            try:
                if not connection.is_direct:
                    await asyncio.to_thread(session.refuse_shared)
            except BaseException:
                await connection.close()
                raise
        self._connection = connection
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection = self.session
        try:
            # The server notices the end of a session a moment later than we do, and would still refuse the lock to the
            # next process that asks. Behind a pooler the server's session may not end at all.
            if not connection.closed:
                with suppress(LadderError), translated(), answering(connection, _UNLOCK_SECONDS):
                    await connection.execute(QUERIES["unlock"])
        finally:
            await connection.close()

    async def try_lock(self, key: int = LOCK) -> bool:
        """Become the one that feeds (or, by another key, does that); True if this session is. Held until it ends."""
        # The lock is counted per session: asking again would only need as many unlocks.
        return bool((await self._read("try_lock", key=key))[0][0])

    async def source(self) -> str:
        """
        Return the identity of this database's history, which no board has if it has no name yet.

        `Unavailable` or `StoreBug` on a standby.
        """
        return str((await self._read("source"))[0][0])

    async def adopt(self) -> str:
        """Return the same after giving it a name if it has none; `StoreBug` without the right to, or on a standby."""
        with translated(), answering(self.session, ANSWER_SECONDS):
            source = await identify(self.session)
        if source is None:
            raise StoreBug(UNIDENTIFIED)
        return source

    async def disown(self, source: str) -> None:
        """End a history, if it still is this one: what it is asked for next is another."""
        await self._execute("disown", name=source.rpartition(":")[2])

    async def clock(self) -> tuple[int, bool, int]:
        """
        Return the horizon, whether rows claim transactions that this cluster has yet to begin, and what is purged.

        Tombstones of transactions below the last one may have been removed. O(log n).
        """
        ((horizon, is_foreign, purged),) = await self._read("clock")
        return int(horizon), bool(is_foreign), int(purged)

    async def foreign(self) -> int:
        """Return how many users and tombstones claim transactions that this cluster has yet to begin. O(that)."""
        return int((await self._read("foreign"))[0][0])

    async def rebase(self, *, limit: int) -> int:
        """Give some of those a transaction of this cluster; returns how many, 0 when there are none left."""
        ((users,),) = await self._read("rebase_users", limit=limit)
        return int(users) or int((await self._read("rebase_tombstones", limit=limit))[0][0])

    async def forget(self) -> None:
        """Remove the idempotency keys that are older than a day, in small transactions."""
        with metrics.postgres_call("forget"), translated():
            await idempotency.forget(self.session)

    async def origin(self) -> tuple[Checkpoint, Version]:
        """Return where the tail must start after a load that begins now, and the newest version given out."""
        ((horizon, version),) = await self._read("origin")
        return Checkpoint(horizon), Version(version)

    async def users(self, ids: Sequence[UserId]) -> dict[UserId, Change]:
        """Return those of these users that exist now. O(ids * log n)."""
        asked = [user_id for user_id in ids if _is_possible(user_id)]
        return {row[0]: Change(*row) for row in await self._read("inspect", ids=asked)}

    async def present(self, ids: Sequence[UserId]) -> set[UserId]:
        """Return which of these users exist now. O(ids * log n)."""
        asked = [user_id for user_id in ids if _is_possible(user_id)]
        return {row[0] for row in await self._read("present", ids=asked)}

    async def count(self) -> int:
        """Return how many users there are, about as many if they are many millions. O(n)."""
        return int((await self._read("count"))[0][0])

    async def is_empty(self) -> bool:
        """Return whether there is no user at all."""
        return bool((await self._read("is_empty"))[0][0])

    @property
    def place(self) -> str:
        """The database that this session leads to, and its server."""
        info = self.session.info
        return f"{info.dbname} at {info.host or 'localhost'}:{info.port}"

    async def heap(self) -> tuple[str, int]:
        """Return the identity of the users' file, which changes when the table is rewritten, and its pages."""
        ((file, pages),) = await self._read("heap")
        return str(file), int(pages)

    async def rows(self, first: int, last: int, *, in_order: bool = False) -> list[Change]:
        """Return the users that lie in the pages from `first` to before `last`, in the board's order if asked to."""
        query = "rows_in_order" if in_order else "rows"
        return [Change(*row) for row in await self._read(query, first=f"({first},0)", last=f"({last},0)")]

    async def changes(self, checkpoint: Checkpoint, *, limit: int) -> tuple[list[Change], Checkpoint, bool]:
        """
        Return what was committed after the checkpoint, the checkpoint after it, and whether that was all.

        "All" is everything that any transaction below the snapshot's horizon committed. Raises `Refused` when tombstones
        after the checkpoint were removed: the deletions among the changes would be missing.
        """
        rows = await self._read("changes", xact=checkpoint.xact, id=checkpoint.id, limit=limit)
        if int(rows[0][6]) > int(checkpoint.xact):
            raise Refused
        found = [Change(row[2], row[3], row[4], row[5]) for row in rows if row[2] is not None]
        if len(found) == limit:
            return found, Checkpoint(rows[-1][1], rows[-1][2]), False
        return found, Checkpoint(rows[0][0]), True

    async def unsettled(self, checkpoint: Checkpoint, *, limit: int) -> tuple[list[Change], Checkpoint, bool]:
        """Return what was committed after the checkpoint at or above the horizon, as `changes` does."""
        rows = await self._read("unsettled", xact=checkpoint.xact, id=checkpoint.id, limit=limit)
        found = [Change(*row[1:]) for row in rows]
        return found, Checkpoint(*rows[-1][:2]) if rows else checkpoint, len(found) < limit

    async def _read(self, query: str, **parameters: object) -> list[tuple[Any, ...]]:
        return await (await self._execute(query, **parameters)).fetchall()

    async def _execute(self, query: str, **parameters: object) -> psycopg.AsyncCursor[TupleRow]:
        connection = self.session
        with metrics.postgres_call(query), translated(), answering(connection, ANSWER_SECONDS):
            return await connection.execute(QUERIES[query], parameters)

    @property
    def session(self) -> Connection:
        """The session that holds the lock: what is written on it, nobody writes who has lost the lock."""
        if self._connection is None:
            message = "a Feed is used inside its context"
            raise RuntimeError(message)
        return self._connection


def _is_possible(user_id: UserId) -> bool:
    # An id typed into Redis by hand may hold what no text of Postgres does: a NUL, or a letter that is not in the
    # encoding of the database. Ids are of ASCII letters alone.
    return user_id.isascii() and "\0" not in user_id
