"""What Postgres keeps of deleted users: counted and removed over a session that holds the reconciliation's lock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from service import metrics
from service.errors import Unavailable
from service.model import Version
from service.store.postgres import ANSWER_SECONDS, answering, load_queries, translated

if TYPE_CHECKING:
    from service.store.feed import Feed

PURGE_ROWS = 1000
"""Tombstones that one statement removes, some 10 ms: a deletion of the same id may have to wait for its end."""
_SQL = load_queries(Path(__file__).with_suffix(".sql"))


class Settled(msgspec.Struct, frozen=True):
    """
    A version, and a transaction above all that drew it or a lower one.

    When all transactions below `xact` have ended, every write of a version up to `version` has, and its deletions are
    known for good.
    """

    version: Version
    xact: int


class Tombstones:
    """The tombstones of one database."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def count(self, *, days: int) -> tuple[int, bool]:
        """Return how many there are, and whether the oldest one is older than `days`. O(tombstones)."""
        ((tombstones, is_old),) = await self._read("count", days=days)
        return int(tombstones), bool(is_old)

    async def present(self) -> Settled:
        """Return the newest version given out, which is settled once the transactions of now have ended."""
        # In this order: a transaction has its id before it draws a version, so every transaction that drew this version
        # or a lower one has an id below the one taken here afterwards. In the other order one could begin in between.
        ((version,),) = await self._read("drawn")
        ((xact,),) = await self._read("begun")
        return Settled(Version(version), int(xact))

    async def stay(self) -> None:
        """Keep the session, and with it the lock: the server ends a session that is silent for some seconds."""
        await self._read("drawn")

    async def announce(self, settled: Settled, *, source: str) -> None:
        """Record that tombstones below that transaction go; raises `Unavailable` if another history has begun."""
        if not await self._read("announce", xact=str(settled.xact), name=source.rpartition(":")[2]):
            message = "another history of Postgres has begun"
            raise Unavailable(message)

    async def purge(self, settled: Settled) -> int:
        """Remove some settled tombstones, which must have been announced; returns how many, 0 when none are left."""
        ((removed,),) = await self._read("purge", xact=str(settled.xact), version=settled.version, limit=PURGE_ROWS)
        return int(removed)

    async def _read(self, query: str, **parameters: object) -> list[tuple[Any, ...]]:
        session = self._feed.session
        with metrics.postgres_call(f"tombstones_{query}"), translated(), answering(session, ANSWER_SECONDS):
            return await (await session.execute(_SQL[query], parameters)).fetchall()
