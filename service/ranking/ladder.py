"""
What the product does: look up, search, page; and, by `writing`, whatever changes users. The policy between the stores.

A read goes to the mirror, and to Postgres when the mirror must not or cannot answer; both give the same
rank. A write is committed in Postgres first and carried to the mirror second, so the mirror only ever
holds what is committed. Every verb is a batch underneath; `coalesce` gathers concurrent callers.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from service.errors import LadderError, NotFound, StoreBug, Unavailable
from service.model import (
    Day,
    Page,
    User,
    UserId,
    Window,
)
from service.ranking.answers import ANY, Answer, Demand, Seen
from service.ranking.breaker import BreakerState
from service.ranking.choice import Choice
from service.ranking.coalesce import Coalescer
from service.ranking.cursor import Cursors
from service.ranking.deadline import within
from service.ranking.drift import Outcome
from service.ranking.fallback import Fallback
from service.ranking.guarded import GuardedMirror, Lookup
from service.ranking.standings import Standings
from service.ranking.writing import Writes
from service.store.history import ANY_SOURCE
from service.store.mirror import RANK_IDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.store.ledger import Ledger
    from service.store.mirror import Mirror, State

PAGE_WINDOWS = 16
"""Pages in one batch: each is a script call of its own in the pipeline."""
HISTORIES = 16
"""Histories in one batch: some thousands of rows of Postgres' at most."""
LEDGER_SECONDS = 2.0
"""How long a read waits for a row of Postgres': past a server that has gone silent."""
PING_SECONDS = 0.5
"""How long a store has to say that it is there: those who probe us wait a second or less."""


class Ladder(Writes):
    """
    The one board of a ledger and its mirror.

    `source` tells which history of Postgres is being read, "" while that is not known; the mirror
    refuses to rank for another history than its own. `withheld` tells why it must not be used at all, "" if it may;
    `interrupted` why it is not being fed, "" if it is.
    Without a `cursor_key` the database's own is used.
    `served` is told of each user whom the mirror ranked, and must return at once.
    """

    def __init__(
        self,
        ledger: Ledger,
        mirror: Mirror,
        *,
        source: Callable[[], str],
        cursor_key: bytes | None = None,
        withheld: Callable[[], str] = lambda: "",
        interrupted: Callable[[], str] = lambda: "",
        served: Callable[[UserId], None] = lambda _: None,
    ) -> None:
        super().__init__(ledger, GuardedMirror(mirror, source=source))
        self._cursor_key = cursor_key
        self._mirror = mirror
        self._source = source
        self._withheld = withheld
        self._interrupted = interrupted
        self._served = served
        self.fallback = Fallback(ledger)
        self._choice = Choice(self._guarded)
        self._mirrored = Coalescer(self._guarded.users, shared=True, max_batch=RANK_IDS, name="users")
        self._mirrored_pages = Coalescer(self._guarded.pages, shared=True, max_batch=PAGE_WINDOWS, name="pages")
        self._stored = Coalescer(self._ask_ledger, shared=True, max_batch=RANK_IDS, name="objects")
        self.standings = Standings(self._guarded, self._choice, self.fallback, stored=self._stored_user, served=served)
        self._searched = Coalescer(self._search_ledger, shared=True, max_batch=1, max_in_flight=4, name="searches")
        self._recalled = Coalescer(self._ledger.past, shared=True, max_batch=HISTORIES, name="histories")
        self._pinged = Coalescer(self._ping_ledger, shared=True, max_in_flight=1, name="pings")
        self._keyed = Coalescer(self._ask_cursor_key, shared=True, max_in_flight=1, name="cursor_keys")
        self._looked_at = Coalescer(self._ask_state, shared=True, max_in_flight=1, name="states")
        self._left = Coalescer(self._ask_outcome, shared=True, max_in_flight=1, name="outcomes")

    async def drain(self) -> None:
        """Return when no call is under way: before the stores are closed."""
        pages = (self._mirrored_pages, self._searched, self._recalled, self.standings)
        probes = (self._keyed, self._pinged, self._looked_at, self._left)
        reads = (self._mirrored, *pages, self._stored, *probes, self.fallback)
        await super().drain()
        for gathered in reads:
            await gathered.drain()

    # Reads

    async def user(self, user_id: UserId, *, demand: Demand = ANY) -> Answer[Seen]:
        """Return a user and where they stand; raises `NotFound` or `Unavailable`. O(log n)."""
        read = await self._choice.read(
            lambda: self._mirrored(Lookup(user_id, demand.since)),
            lambda: self.fallback.user(user_id, exact=demand.exact),
            demand=demand,
        )
        if isinstance(read, Answer):
            return read
        board, standing = read.value.board, read.value.standing
        user = read.value.user
        if user is None:
            # What the mirror does not know may still exist: it may be on its way there.
            user = await self._stored_user(user_id)
        if standing is None or standing.version != user.version:
            # A write came between the two reads, or has not reached the mirror. A rank of one version must
            # not be shown beside the rating of another, so Postgres answers for both.
            return await self.fallback.user(user_id, exact=True)
        self._served(user_id)
        return Answer(Seen(user, standing), "redis", board.lag_ms, stale=read.stale)

    async def page(
        self, *, limit: int, offset: int = 0, cursor: str | None = None, demand: Demand = ANY
    ) -> tuple[Answer[Page], str | None]:
        """
        Return rows of the board, all ranked at one instant, and the cursor after them (None at the end).

        They begin after the cursor's point if there is one, else after `offset` rows. Raises `Invalid`
        for a cursor that is not ours, and `Unavailable`. O(log n + limit).
        """
        cursors = await self._cursors()
        after = None if cursor is None else cursors.open(cursor)
        window = Window(limit, offset, after, demand.since)
        read = await self._choice.read(
            lambda: self._mirrored_pages(window), lambda: self.fallback.page(window), demand=demand
        )
        if isinstance(read, Answer):
            answer = read
        else:
            answer = Answer(read.value, "redis", read.value.board.lag_ms, stale=read.stale)
        return answer, cursors.after(answer.value)

    async def top(self, *, limit: int, demand: Demand = ANY) -> tuple[Answer[Page], Cursors]:
        """Return the first rows of the board as `page` does, and what makes the cursor after any beginning of them."""
        answer, _ = await self.page(limit=limit, demand=demand)
        return answer, await self._cursors()

    async def _stored_user(self, user_id: UserId) -> User:
        async with within(LEDGER_SECONDS, Unavailable("Postgres did not answer in time")):
            return await self._stored(user_id)

    async def warm(self) -> None:
        """Fetch what pages need from Postgres once, so that they can be served while it is away."""
        await self._cursors()

    async def _cursors(self) -> Cursors:
        if self._cursor_key is None:
            # It never changes: processes that fetch it at the same time get the same one.
            self._cursor_key = await self._keyed(None)
        return Cursors(self._cursor_key)

    async def search(self, prefix: str, *, limit: int, demand: Demand = ANY) -> list[Answer[Seen]]:
        """
        Return users by the beginning of their name, regardless of case, ordered by lower(username).

        One who is deleted or renamed away meanwhile is left out.
        """
        prefix = prefix.lower()
        async with within(LEDGER_SECONDS, Unavailable("Postgres did not answer in time")):
            found = await self._searched((prefix, limit))
        reads = (self.user(user.id, demand=demand) for user in found)
        answers = await asyncio.gather(*reads, return_exceptions=True)
        seen = []
        for answer in answers:
            if isinstance(answer, NotFound):
                continue
            if isinstance(answer, BaseException):
                raise answer
            if answer.value.user.username.lower().startswith(prefix):
                seen.append(answer)
        return seen

    async def past(self, user_id: UserId, *, days: int) -> list[Day]:
        """
        Return where a user stood at the end of each of so many days up to today (UTC) on which their rating had changed.

        Oldest first, and before them the last such day that is earlier. Whoever has no row left, after 400 days, may
        get one without a change. Raises `NotFound`, `Unavailable`.
        O(log n + days).
        """
        async with within(LEDGER_SECONDS, Unavailable("Postgres did not answer in time")):
            return await self._recalled((user_id, days))

    async def ping_ledger(self) -> None:
        """Return once Postgres has answered; raises `Unavailable`."""
        async with within(PING_SECONDS, Unavailable("Postgres did not answer in time")):
            await self._pinged(None)

    async def mirror_state(self) -> State | None:
        """Return what the mirror says of itself, None if there is none; raises `Unavailable`."""
        async with within(PING_SECONDS, Unavailable("Redis did not answer in time")):
            return await self._looked_at(None)

    async def last_reconcile(self) -> Outcome | None:
        """Return how the last full reconciliation ended, None if that is not known; raises `Unavailable`."""
        async with within(PING_SECONDS, Unavailable("Redis did not answer in time")):
            raw = await self._left(None)
        try:
            return None if raw is None else msgspec.json.decode(raw, type=Outcome)
        except msgspec.MsgspecError:
            return None

    @property
    def breaker(self) -> BreakerState:
        """Whether Redis is asked, left alone, or being tried again."""
        return self._guarded.breaker.state

    def trusts(self, state: State) -> bool:
        """Whether ranks are read from a mirror in this state: complete, undamaged, of our own history."""
        return state.ready and state.intact and self._source() in (state.source, ANY_SOURCE)

    def distrust(self, state: State | BaseException | None) -> str:
        """Return why ranks are not read from a mirror that said this of itself, or did not answer so; "" if they are."""
        if (withheld := self._withheld()) or isinstance(state, BaseException):
            return withheld or str(state)
        if state is None:
            return self._interrupted() or "Redis holds no board"
        if self.trusts(state):
            return self._guarded.trouble
        if not state.intact:
            return "the board is damaged, and will be loaded again"
        if state.ready:
            return "the board is of another history of Postgres"
        return self._interrupted() or "the board is being loaded"

    # A batch asks one store only: look-ups that Redis can answer do not wait for those that Postgres must.

    async def _ask_ledger(self, ids: Sequence[UserId]) -> list[User | NotFound]:
        source = self._source()
        users = await self._ledger.users(ids)
        if users and source == self._source():
            await self._guarded.fill(list(users.values()), source=source)
        return [users.get(user_id) or NotFound() for user_id in ids]

    async def _search_ledger(self, searches: Sequence[tuple[str, int]]) -> list[list[User]]:
        return [await self._ledger.search(prefix, limit=limit) for prefix, limit in searches]

    async def _ask_cursor_key(self, asked: Sequence[None]) -> list[bytes]:
        return [await self._ledger.cursor_key()] * len(asked)

    async def _ask_state(self, asked: Sequence[None]) -> list[State | None]:
        try:
            return [await self._guarded.state()] * len(asked)
        except LadderError:
            raise
        except Exception as error:
            self._guarded.report_defect(error)
            raise StoreBug("what Redis says of the board could not be understood") from error

    async def _ask_outcome(self, asked: Sequence[None]) -> list[bytes | None]:
        return [await self._mirror.last_reconcile()] * len(asked)

    async def _ping_ledger(self, pings: Sequence[None]) -> Sequence[None]:
        await self._ledger.ping()
        return pings
