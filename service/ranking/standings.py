"""
The reads that compare: where a user or a rating stands, who is around, how friends stand, how ratings are spread.

Each is one script call, so everything in one answer is of one instant; or one statement of Postgres'.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from service.errors import NotFound
from service.model import Around, Buckets
from service.ranking.answers import ANY, Answer, Demand, Ranked
from service.ranking.coalesce import Coalescer
from service.ranking.guarded import Listing, Lookup
from service.store.mirror import MAX_BUCKETS, RANK_IDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from service.model import Counted, Page, Roster, User, UserId
    from service.ranking.choice import Choice
    from service.ranking.fallback import Fallback
    from service.ranking.guarded import GuardedMirror

WINDOWS = 16
"""Neighbourhoods and histograms in one batch: each is a script call of its own in the pipeline."""
LISTS = 1
"""Lists in one batch: one of a thousand users keeps Redis busy for milliseconds (decision 10)."""


class Standings:
    """
    These reads of one board; every one raises `Unavailable` when neither store can answer.

    `stored` returns a user as Postgres has them, or raises `NotFound` or `Unavailable`; `served` is told of
    each user whom the mirror ranked alone.
    """

    def __init__(
        self,
        mirror: GuardedMirror,
        choice: Choice,
        fallback: Fallback,
        *,
        stored: Callable[[UserId], Awaitable[User]],
        served: Callable[[UserId], None],
    ) -> None:
        self._choice = choice
        self._fallback = fallback
        self._stored = stored
        self._served = served
        self._ranked = Coalescer(mirror.ranks, shared=True, max_batch=RANK_IDS, name="ranks")
        self._listed = Coalescer(mirror.rosters, shared=True, max_batch=LISTS, name="lists")
        self._around = Coalescer(mirror.neighbors, shared=True, max_batch=WINDOWS, name="neighbors")
        self._counted = Coalescer(mirror.histograms, shared=True, max_batch=WINDOWS, name="rating_counts")

    async def drain(self) -> None:
        """Return when no call is under way."""
        for gathered in (self._ranked, self._listed, self._around, self._counted):
            await gathered.drain()

    async def rank(self, user_id: UserId, *, demand: Demand = ANY) -> Answer[Ranked]:
        """Return where a user stands among how many; raises `NotFound`. O(log n), and no other look-up."""
        read = await self._choice.read(
            lambda: self._ranked(Lookup(user_id, demand.since)),
            lambda: self._fallback.rank(user_id, exact=demand.exact),
            demand=demand,
        )
        if isinstance(read, Answer):
            return read
        board, standing = read.value.board, read.value.standing
        if standing is None:
            # What the mirror does not know may still exist: it may be on its way there.
            await self._stored(user_id)
            return await self._fallback.rank(user_id, exact=True)
        self._served(user_id)
        ranked = Ranked(user_id, standing.rating, standing.rank, standing.position, board.total)
        return Answer(ranked, "redis", board.lag_ms, stale=read.stale)

    async def neighbors(self, user_id: UserId, *, radius: int, demand: Demand = ANY) -> Answer[Page]:
        """
        Return the `2 * radius + 1` rows around a user; raises `NotFound`. O(log n + radius).

        Near an end of the board the user is not in their middle; all rows if there are not so many.
        """
        around = Around(user_id, radius, demand.since)
        read = await self._choice.read(
            lambda: self._around(around), lambda: self._fallback.neighbors(around), demand=demand
        )
        if isinstance(read, Answer):
            return read
        if not read.value.rows:
            await self._stored(user_id)
            return await self._fallback.neighbors(around)
        return Answer(read.value, "redis", read.value.board.lag_ms, stale=read.stale)

    async def rows(self, ids: Sequence[UserId], *, demand: Demand = ANY) -> Answer[Roster]:
        """Return the rows of up to 1000 different users, None for whoever there is not. O(ids * log n)."""
        listing = Listing(tuple(ids), demand.since)
        read = await self._choice.read(
            lambda: self._listed(listing), lambda: self._fallback.rows(listing.ids), demand=demand
        )
        if isinstance(read, Answer):
            return read
        absent = [user_id for user_id, row in zip(ids, read.value.rows, strict=True) if row is None]
        looked_up = await asyncio.gather(*map(self._stored, absent), return_exceptions=True)
        if not all(isinstance(found, NotFound) for found in looked_up):
            for found in looked_up:
                if isinstance(found, BaseException) and not isinstance(found, NotFound):
                    raise found
            # Somebody is on the way to the mirror: they must be in the list, and at the others' instant.
            return await self._fallback.rows(listing.ids)
        return Answer(read.value, "redis", read.value.board.lag_ms, stale=read.stale)

    async def count(self, buckets: Buckets, *, demand: Demand = ANY) -> Answer[Counted]:
        """
        Return how many users have which ratings. O(buckets * log n).

        More than `MAX_BUCKETS` are counted by Postgres: one call would keep Redis from everybody else for too
        long, and several are not of one instant.
        """
        if len(buckets) > MAX_BUCKETS:
            return await self._fallback.count(buckets, exact=True)
        asked = Buckets(buckets.low, buckets.high, buckets.width, demand.since)
        read = await self._choice.read(
            lambda: self._counted(asked), lambda: self._fallback.count(buckets, exact=demand.exact), demand=demand
        )
        if isinstance(read, Answer):
            return read
        return Answer(read.value, "redis", read.value.board.lag_ms, stale=read.stale)
