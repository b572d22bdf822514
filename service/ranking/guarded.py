"""
The mirror as requests may use it: behind a circuit breaker, within a deadline, of our own history.

The tailer uses the mirror itself: it has the patience, and its calls say nothing about how requests fare.
"""

from __future__ import annotations

import math
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import structlog

from service import failpoints, metrics
from service.errors import Behind, LadderError, NotReady, Overloaded, StoreBug, Unavailable, Unsupported, explain
from service.model import Around, Board, Buckets, Counted, Page, Placed, Roster, Standing, Token, User, UserId, Window
from service.ranking.breaker import Breaker
from service.ranking.deadline import within
from service.store.history import ANY_SOURCE, NO_SOURCE
from service.store.mirror import RANK_IDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from service.model import Rated, Removed
    from service.ranking.breaker import BreakerState
    from service.store.mirror import Mirror, State

CALL_SECONDS = 0.5
"""One call to Redis in all, connecting included; each step of it is allowed about half (`store.redis`)."""
BLAME_SECONDS = 60
"""How often the log says why writes do not reach Redis, as long as the reason is the same."""

TROUBLE_SECONDS = 10
"""How long `trouble` is told after the call that failed: longer than the pause between two looks at `/health`."""

_log = structlog.get_logger(__name__)


class Lookup(msgspec.Struct, frozen=True):
    """A user to look up in the mirror, if that has every write in `since`."""

    user_id: UserId
    since: tuple[Token, ...] = ()


class Listing(msgspec.Struct, frozen=True):
    """Users whose rows are asked for, if the mirror has every write in `since`."""

    ids: tuple[UserId, ...]
    since: tuple[Token, ...] = ()


class Sighting(msgspec.Struct, frozen=True):
    """What the mirror knows of a user: nothing, where they stand, or that and the cached object."""

    board: Board
    standing: Standing | None
    user: User | None


class GuardedMirror:
    """
    The calls that requests make to one mirror.

    Reads raise `Unavailable`: at once while the breaker is open, else after `CALL_SECONDS` at the latest.
    """

    def __init__(
        self, mirror: Mirror, *, source: Callable[[], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._mirror = mirror
        self._source = source
        self._clock = clock
        self._failed_at = -math.inf
        self.breaker = Breaker("Redis", changed=self._turned)
        self._told: BreakerState = "closed"
        self._blamed, self._blamed_at = "", -math.inf
        self._trouble, self._trouble_at = "", -math.inf
        self._defect, self._defect_at = "", -math.inf

    def _turned(self, state: BreakerState) -> None:
        # Probes that fail, every ten seconds for as long as Redis is away, are no news.
        news = state not in ("half-open", self._told)
        if news:
            self._told = state
        (_log.warning if news else _log.debug)("redis.breaker", state=state)

    def is_doubtful(self, lag_ms: int, *, asked_at: float) -> bool:
        """
        Whether the mirror may lack something since a call to it failed, when it was asked at `asked_at` and lagged so.

        A Redis that comes back may have lost what it had acknowledged, and a put that failed is not in it:
        both are over when everything was applied at a moment after the failure. Two durations are compared,
        each measured on one clock: how long ago that moment was for Redis, and the failure for us. An unknown lag
        ends no doubt; `Choice` and `put` do not ask then.
        """
        return lag_ms >= (asked_at - self._failed_at) * 1000

    @asynccontextmanager
    async def _calling(self) -> AsyncIterator[None]:
        with self.breaker.guarding():
            try:
                async with within(CALL_SECONDS, Unavailable("Redis did not answer in time")):
                    yield
            except (NotReady, Overloaded):
                # Neither says that Redis failed: one is its answer, the other is our own lack of a connection.
                raise
            except Unavailable as error:
                if isinstance(error, Unsupported):
                    self._note_trouble(error)
                self._failed_at = self._clock()
                raise

    @property
    def trouble(self) -> str:
        """Why calls of some kind fail although Redis answers others, "" if none did in the last `TROUBLE_SECONDS`."""
        return self._trouble if self._clock() - self._trouble_at <= TROUBLE_SECONDS else ""

    def _note_trouble(self, error: Exception) -> None:
        self._trouble, self._trouble_at = str(error) if isinstance(error, LadderError) else "", self._clock()
        self._trouble = self._trouble or "the mirror's answer could not be understood"

    def report_defect(self, error: Exception) -> None:
        """Log a defect in a read of the mirror, once a minute while it is the same one; Postgres answers in its place."""
        self._note_trouble(error)
        now, reason = self._clock(), repr(error)
        if reason == self._defect and now - self._defect_at < BLAME_SECONDS:
            return
        self._defect, self._defect_at = reason, now
        _log.error("mirror.read_failed", reason=explain(error), exc_info=error)

    async def state(self) -> State | None:
        """
        Return what the mirror says of itself, None if there is none; raises `Unavailable`.

        Asked while the breaker is open, too, and then a welcome probe: a service that nobody but its watchers asks
        would stay open for ever.
        """
        if not self.breaker.admits:
            async with within(CALL_SECONDS, Unavailable("Redis did not answer in time")):
                return await self._mirror.state()
        async with self._calling():
            return await self._mirror.state()

    async def users(self, lookups: Sequence[Lookup]) -> list[Sighting | Behind]:
        """Return what the mirror knows of each user; `Behind` where it lacks a write of the look-up's."""
        # The writes are looked for in the same script call as the ranks, so at the same instant.
        ids = {lookup.user_id: None for lookup in lookups}
        ids.update((token.id, None) for lookup in lookups for token in lookup.since)
        async with self._calling():
            board, held = await self._mirror.users(list(ids), source=self._source())
        metrics.looked_up(len(held), found=sum(user is not None for _, user in held.values()))

        def has(token: Token) -> bool:
            return token.id in held and held[token.id][0].version >= token.version

        return [
            Sighting(board, *held.get(lookup.user_id, (None, None))) if all(map(has, lookup.since)) else Behind()
            for lookup in lookups
        ]

    async def pages(self, windows: Sequence[Window]) -> Sequence[Page | Behind]:
        """Return the page of each window; `Behind` where the mirror lacks a write of the window's."""
        async with self._calling():
            return await self._mirror.pages(windows, source=self._source())

    async def ranks(self, lookups: Sequence[Lookup]) -> list[Sighting | Behind]:
        """Return where each user stands, as `users` does but without the cached objects."""
        ids = {lookup.user_id: None for lookup in lookups}
        ids.update((token.id, None) for lookup in lookups for token in lookup.since)
        # Writes are looked for at the instant of the ranks: found later, they may have come between the two.
        at_once = len(ids) if any(lookup.since for lookup in lookups) else RANK_IDS
        async with self._calling():
            board, held = await self._mirror.standings(list(ids), source=self._source(), at_once=at_once)
        return [
            Sighting(board, held.get(lookup.user_id), None)
            if all(token.id in held and held[token.id].version >= token.version for token in lookup.since)
            else Behind()
            for lookup in lookups
        ]

    async def rosters(self, listings: Sequence[Listing]) -> list[Roster | Behind]:
        """Return the rows of each list; `Behind` where the mirror lacks a write of the list's."""
        asked = [
            (*listing.ids, *(token.id for token in listing.since if token.id not in listing.ids))
            for listing in listings
        ]
        async with self._calling():
            replies = await self._mirror.rosters(asked, source=self._source())
        return [
            Roster(roster.board, roster.rows[: len(listing.ids)])
            if all(versions.get(token.id, 0) >= token.version for token in listing.since)
            else Behind()
            for listing, (roster, versions) in zip(listings, replies, strict=True)
        ]

    async def neighbors(self, asked: Sequence[Around]) -> Sequence[Page | Behind]:
        """Return the rows around each user; `Behind` where the mirror lacks a write of the question's."""
        async with self._calling():
            return await self._mirror.neighbors(asked, source=self._source())

    async def histograms(self, asked: Sequence[Buckets]) -> Sequence[Counted | Behind]:
        """Count users by rating; `Behind` where the mirror lacks a write of the question's."""
        async with self._calling():
            return await self._mirror.histograms(asked, source=self._source())

    async def fill(self, users: Sequence[User], *, source: str) -> None:
        """Cache users that were read from Postgres when it was of that history, if Redis takes them now."""
        if source in (ANY_SOURCE, NO_SOURCE):
            return
        try:
            async with self._calling():
                await self._mirror.fill(users, source=source)
        except StoreBug as error:
            self.report_defect(error)
        except LadderError as error:
            _log.debug("cache.fill_failed", reason=str(error), users=len(users))
        except Exception as error:  # noqa: BLE001  the users have been read: that they are not cached is no error of theirs
            self.report_defect(error)

    async def put(self, rated: Sequence[Rated | Removed]) -> Sequence[Placed]:
        """
        Carry committed writes over; per write what became of it.

        `pending` for all if Redis does not say, or places them on a board that may lack others' writes.
        """
        # Whoever saw Postgres last may have seen another history than the one that took the write: then no board is
        # believed, because which of the two is the lost one shows only later.
        seen = self._source()
        source = seen if {item.source for item in rated} == {seen} else NO_SOURCE
        asked_at = self._clock()
        try:
            async with self._calling():
                if await failpoints.reach("before_put"):
                    lag_ms, placed = None, [Placed("pending")] * len(rated)
                else:
                    lag_ms, placed = await self._mirror.put(rated, source=source)
                await failpoints.reach("after_put")
        except Exception as error:  # noqa: BLE001  committed is committed, whatever the mirror makes of it
            self._blame(error, writes=len(rated))
            lag_ms, placed = None, [Placed("pending")] * len(rated)
        if any(place.outcome == "pending" for place in placed):
            # Whoever wrote through this process reads their write from it: from Postgres until it is mirrored.
            self._failed_at = self._clock()
        elif lag_ms is not None and self.is_doubtful(lag_ms, asked_at=asked_at):
            # These are in the mirror, so they give no new reason for doubt: else a steady stream of writes
            # would keep it alive for ever.
            placed = [Placed("pending")] * len(rated)
        metrics.written(place.outcome for place in placed)
        return placed

    def _blame(self, error: Exception, *, writes: int) -> None:
        if not isinstance(error, Unavailable):
            self._note_trouble(error)
        # A Redis that is full refuses every write for hours, and the breaker stays closed over its reads.
        now, reason = self._clock(), explain(error)
        known = isinstance(error, Unavailable) and self.breaker.state != "closed"
        news = not known and (reason != self._blamed or now - self._blamed_at >= BLAME_SECONDS)
        if not news:
            _log.debug("mirror.put_pending", reason=reason, writes=writes)
            return
        self._blamed, self._blamed_at = reason, now
        if isinstance(error, LadderError) and not isinstance(error, StoreBug):
            _log.warning("mirror.put_pending", reason=reason, writes=writes)
        else:
            # A defect of ours: nothing else tells where.
            _log.error("mirror.put_pending", reason=reason, writes=writes, exc_info=error)
