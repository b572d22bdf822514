"""
What the product does: create, rate, look up, search, page. The policy between the two stores.

A read goes to the mirror, and to Postgres when the mirror must not or cannot answer; both give the same
rank. A write is committed in Postgres first and carried to the mirror second, so the mirror only ever
holds what is committed. Every verb is a batch underneath; `coalesce` gathers concurrent callers.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
import structlog

from service.errors import LadderError, NotFound, NotReady, Unavailable
from service.model import (
    Board,
    NewRating,
    NewUser,
    Page,
    Placed,
    Point,
    Rated,
    Source,
    Standing,
    User,
    UserId,
    Window,
)
from service.ranking.coalesce import Coalescer
from service.ranking.cursor import Cursors
from service.store.mirror import ANY_SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from service.model import Version
    from service.store.ledger import Ledger
    from service.store.mirror import Mirror, State

V = TypeVar("V")


RANK_IDS = 256
"""Users in one batch of look-ups: one script call under 2 ms."""
PAGE_WINDOWS = 16
"""Pages in one batch: each is a script call of its own in the pipeline."""
COUNTED_IDS = 16
"""Users in one batch that Postgres ranks by counting: few, so that one statement stays short."""
WRITE_ROWS = 100
"""Writes in one transaction, and in the put that follows it."""

_log = structlog.get_logger(__name__)


class Answer(msgspec.Struct, Generic[V], frozen=True):
    """A read's value, which store ranked it, and how far the mirror may have lagged (None from Postgres)."""

    value: V
    source: Source
    lag_ms: int | None = None


class Seen(msgspec.Struct, frozen=True):
    """A user and where they stand, both of the same version."""

    user: User
    standing: Standing


class Written(msgspec.Struct, frozen=True):
    """A committed write and what became of it in the mirror."""

    user: User
    previous_rating: int | None
    placed: Placed


class Ladder:
    """
    The one board of a ledger and its mirror.

    `source` tells which history of Postgres is being read, "" while that is not known; the mirror
    refuses to rank for another history than its own. Without a `cursor_key` the database's own is used.
    """

    def __init__(
        self, ledger: Ledger, mirror: Mirror, *, source: Callable[[], str], cursor_key: bytes | None = None
    ) -> None:
        self._cursor_key = cursor_key
        self._ledger = ledger
        self._mirror = mirror
        self._source = source
        self._failed_at = -math.inf
        self._mirrored = Coalescer(self._ask_mirror, shared=True, max_batch=RANK_IDS)
        self._mirrored_pages = Coalescer(self._ask_mirror_for_pages, shared=True, max_batch=PAGE_WINDOWS)
        self._stored = Coalescer(self._ask_ledger, shared=True, max_batch=RANK_IDS)
        self._counted = Coalescer(self._count_in_ledger, shared=True, max_batch=COUNTED_IDS)
        self._counted_pages = Coalescer(self._count_pages_in_ledger, shared=True, max_batch=1)
        self._created = Coalescer(self._create, shared=False, key=lambda user: user.id, max_batch=WRITE_ROWS)
        self._rated = Coalescer(self._rate, shared=False, key=lambda rating: rating.id, max_batch=WRITE_ROWS)

    async def drain(self) -> None:
        """Return when no call is under way: before the stores are closed."""
        reads = (self._mirrored, self._mirrored_pages, self._stored, self._counted, self._counted_pages)
        for gathered in (self._created, self._rated, *reads):
            await gathered.drain()

    # Reads

    async def user(self, user_id: UserId) -> Answer[Seen]:
        """Return a user and where they stand; raises `NotFound` or `Unavailable`. O(log n)."""
        try:
            board, standing, user = await self._mirrored(user_id)
        except Unavailable:
            return await self._counted(user_id)
        # What the mirror does not know may still exist: it may be on its way there.
        user = user or await self._stored(user_id)
        if standing is None or standing.version != user.version:
            # A write came between the two reads, or has not reached the mirror. A rank of one version must
            # not be shown beside the rating of another, so Postgres answers for both.
            return await self._counted(user_id)
        return Answer(Seen(user, standing), "redis", board.lag_ms)

    async def page(self, *, limit: int, offset: int = 0, cursor: str | None = None) -> tuple[Answer[Page], str | None]:
        """
        Return rows of the board, all ranked at one instant, and the cursor after them (None at the end).

        They begin after the cursor's point if there is one, else after `offset` rows. Raises `Invalid`
        for a cursor that is not ours, and `Unavailable`. O(log n + limit).
        """
        cursors = await self._cursors()
        window = Window(limit, after=cursors.open(cursor)) if cursor is not None else Window(limit, offset)
        try:
            page = await self._mirrored_pages(window)
            answer = Answer[Page](page, "redis", page.board.lag_ms)
        except Unavailable:
            answer = Answer(await self._counted_pages(window), "postgres")
        rows, total = answer.value.rows, answer.value.board.total
        if not rows or rows[-1].position >= total:
            return answer, None
        return answer, cursors.seal(Point(rows[-1].rating, rows[-1].username))

    async def warm(self) -> None:
        """Fetch what pages need from Postgres once, so that they can be served while it is away."""
        await self._cursors()

    async def _cursors(self) -> Cursors:
        # The key never changes, so processes that fetch it at the same time get the same one.
        if self._cursor_key is None:
            self._cursor_key = await self._ledger.cursor_key()
        return Cursors(self._cursor_key)

    async def search(self, prefix: str, *, limit: int) -> list[Answer[Seen]]:
        """
        Return users by the beginning of their name, regardless of case, ordered by lower(username).

        One who is deleted or renamed away meanwhile is left out.
        """
        prefix = prefix.lower()
        found = await self._ledger.search(prefix, limit=limit)
        answers = await asyncio.gather(*(self.user(user.id) for user in found), return_exceptions=True)
        seen = []
        for answer in answers:
            if isinstance(answer, NotFound):
                continue
            if isinstance(answer, BaseException):
                raise answer
            if answer.value.user.username.lower().startswith(prefix):
                seen.append(answer)
        return seen

    async def ping_ledger(self) -> None:
        """Return once Postgres has answered; raises `Unavailable`."""
        await self._ledger.ping()

    async def mirror_state(self) -> State | None:
        """Return what the mirror says of itself, None if there is none; raises `Unavailable`."""
        return await self._mirror.state()

    def trusts(self, state: State) -> bool:
        """Whether ranks are read from a mirror in this state: complete, undamaged, of our own history."""
        return state.ready and state.intact and self._source() in (state.source, ANY_SOURCE)

    # A batch asks one store only: look-ups that Redis can answer do not wait for those that Postgres must.

    async def _ask_mirror(self, ids: Sequence[UserId]) -> list[tuple[Board, Standing | None, User | None]]:
        with self._watched():
            board, held = await self._mirror.users(ids, source=self._source())
        self._check_up_to_date(board.lag_ms)
        return [(board, *held.get(user_id, (None, None))) for user_id in ids]

    async def _ask_mirror_for_pages(self, windows: Sequence[Window]) -> Sequence[Page]:
        with self._watched():
            pages = await self._mirror.pages(windows, source=self._source())
        for page in pages:
            self._check_up_to_date(page.board.lag_ms)
        return pages

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except NotReady:
            raise
        except Unavailable:
            self._failed_at = time.monotonic()
            raise

    def _check_up_to_date(self, lag_ms: int | None) -> None:
        """
        Raise `NotReady` until the tailer has brought the mirror up to date after a call to it failed.

        A Redis that comes back may have lost what it had acknowledged, and a put that failed is not in it:
        both are over when everything was applied at a moment after the failure. Two durations are compared,
        each measured on one clock: how long ago that moment was for Redis, and the failure for us.
        """
        if lag_ms is not None and lag_ms >= (time.monotonic() - self._failed_at) * 1000:
            raise NotReady

    async def _ask_ledger(self, ids: Sequence[UserId]) -> list[User | NotFound]:
        users = await self._ledger.users(ids)
        if users:
            try:
                await self._mirror.fill(list(users.values()))
            except LadderError as error:
                _log.debug("cache.fill_failed", reason=str(error), users=len(users))
        return [users.get(user_id) or NotFound() for user_id in ids]

    async def _count_in_ledger(self, ids: Sequence[UserId]) -> list[Answer[Seen] | NotFound]:
        found = await self._ledger.standings(ids)
        return [Answer(Seen(*found[user_id]), "postgres") if user_id in found else NotFound() for user_id in ids]

    async def _count_pages_in_ledger(self, windows: Sequence[Window]) -> list[Page]:
        return [await self._ledger.page(window) for window in windows]

    # Writes

    async def create(self, user: NewUser) -> Written:
        """Create a user; raises `IdTaken`, `UsernameTaken`, `Unavailable`, `OutcomeUnknown`."""
        return await self._created(user)

    async def rate(self, user_id: UserId, rating: int, *, wanted: Version | None = None) -> Written:
        """
        Set a user's rating; a rating that is already theirs changes nothing, not even the version.

        Raises `NotFound`, `PreconditionFailed` (the version is not the `wanted` one), `Unavailable`,
        `OutcomeUnknown`.
        """
        return await self._rated(NewRating(user_id, rating, wanted))

    async def _create(self, users: Sequence[NewUser]) -> list[Written | Exception]:
        return await self._carry_over(await self._ledger.create(users))

    async def _rate(self, ratings: Sequence[NewRating]) -> list[Written | Exception]:
        return await self._carry_over(await self._ledger.rate(ratings))

    async def _carry_over(self, outcomes: Sequence[Rated | LadderError]) -> list[Written | Exception]:
        """
        Put what has just been committed into the mirror.

        Committed first: a put before the commit could show a write that is then rolled back. A put that
        is lost, late or refused is harmless: the version decides, and the tailer brings what is missing.
        """
        rated = [outcome for outcome in outcomes if isinstance(outcome, Rated)]
        placed = iter(await self._put(rated))
        return [
            Written(outcome.user, outcome.previous_rating, next(placed)) if isinstance(outcome, Rated) else outcome
            for outcome in outcomes
        ]

    async def _put(self, rated: Sequence[Rated]) -> Sequence[Placed]:
        if not rated:
            return []
        try:
            lag_ms, placed = await self._mirror.put(rated, source=self._source())
            self._check_up_to_date(lag_ms)
        except Exception as error:  # noqa: BLE001  committed is committed, whatever the mirror makes of it
            _log.warning("mirror.put_pending", reason=str(error), writes=len(rated))
            placed = [Placed("pending")] * len(rated)
        if any(item.outcome == "pending" for item in placed):
            # Whoever wrote through this process reads their write from it: from Postgres until it is mirrored.
            self._failed_at = time.monotonic()
        return placed
