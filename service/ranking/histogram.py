"""
Ranks from a count of the board by rating: one query a second ranks everybody, however many ask.

What it answers is up to two seconds old and is marked so; who needs an exact answer must count.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from service.errors import Unavailable
from service.model import MAX_RATING, MIN_RATING, QUANTILES, Board, Counted
from service.ranking.coalesce import Coalescer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from service.model import Buckets, Census

FRESH_SECONDS = 1.0
"""A histogram younger than this is not asked for again."""
USABLE_SECONDS = 2.0
"""... and one older than this is not answered from."""


class Histogram:
    """
    A census, summed up once so that each rank is one look-up.

    `asked_at` is this process's clock before Postgres was asked: every write that had been answered by
    then is counted.
    """

    def __init__(self, census: Census, *, asked_at: float) -> None:
        self.asked_at = asked_at
        self.snapshot = census.snapshot
        self.as_of: datetime = census.as_of
        counts = (census.users.get(rating, 0) for rating in range(MAX_RATING, MIN_RATING - 1, -1))
        # The n-th is the number of users above rating MAX - n.
        self._above = list(accumulate(counts, initial=0))

    @property
    def total(self) -> int:
        """How many users there are."""
        return self._above[-1]

    def above(self, rating: int) -> int:
        """Return the number of users with a higher rating. O(1)."""
        return self._above[MAX_RATING - rating]

    def counted(self, buckets: Buckets) -> Counted:
        """Return what the mirror would say of these ratings. O(buckets)."""
        users = [self.above(low - 1) - self.above(high) for low, high in buckets.bounds()]
        # Above a quantile is at most what is left when so many percent, rounded up, are not above it.
        most = [self.total - -(-self.total * percent // 100) for percent in QUANTILES] if self.total else []
        quantiles = [MAX_RATING + 1 - bisect_right(self._above, above) for above in most]
        return Counted(Board(self.total), self.above(buckets.high), users, quantiles)


class Histograms:
    """Keeps the newest histogram; whoever needs one finds it fresh or has it asked for, one query at a time."""

    def __init__(self, ask: Callable[[], Awaitable[Census]], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._newest: Histogram | None = None
        self._refreshed: Coalescer[None, Histogram] = Coalescer(
            self._refresh, shared=True, max_in_flight=1, name="histograms"
        )

    async def newest(self) -> Histogram:
        """
        Return a histogram that was asked for at most a second ago; two if it cannot be had anew.

        Raises `Unavailable` when there is none. O(1), O(n) in Postgres once a second.
        """
        if (kept := self._within(FRESH_SECONDS)) is not None:
            return kept
        try:
            return await self._refreshed(None)
        except Unavailable:
            if (kept := self._within(USABLE_SECONDS)) is not None:
                return kept
            raise

    async def drain(self) -> None:
        """Return when no query is under way."""
        await self._refreshed.drain()

    def _within(self, seconds: float) -> Histogram | None:
        kept = self._newest
        return kept if kept is not None and self._clock() - kept.asked_at <= seconds else None

    async def _refresh(self, asked: Sequence[None]) -> list[Histogram]:
        # Whoever came while the query before was under way finds its result here.
        kept = self._within(FRESH_SECONDS)
        if kept is None:
            asked_at = self._clock()
            kept = self._newest = Histogram(await self._ask(), asked_at=asked_at)
        return [kept] * len(asked)
