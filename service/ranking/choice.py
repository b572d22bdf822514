"""
Which store answers a read. The mirror does, unless it lacks a write that the answer must show, or lags.

| mirror | Postgres up | Postgres down or at its cap |
|---|---|---|
| lag up to 2 s | mirror | mirror |
| lag up to 10 s | mirror, marked stale; Postgres if the reader demands freshness | mirror, marked stale |
| lag beyond 10 s | Postgres | mirror, marked stale, up to an hour |
| lacks a write of this process | Postgres | mirror, marked stale |
| lacks the write of the reader's token | Postgres | refused |
| not ready, or away | Postgres | refused |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec

from service.errors import Behind, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.model import Board, Token
    from service.ranking.answers import Answer, Demand
    from service.ranking.breaker import Breaker
    from service.ranking.pending import PendingWrites

FRESH_LAG_MS = 2_000
"""What is promised: a mirror that lags longer is degraded, and what it answers is marked."""
PREFERRED_LAG_MS = 10_000
"""Beyond this lag Postgres is asked first."""
USABLE_LAG_MS = 3_600_000
"""Beyond this lag the mirror is not asked at all: rather no rank than one of yesterday."""


class Dated(Protocol):
    """What the mirror answered, with the board that it was read from."""

    @property
    def board(self) -> Board:
        """The board at that instant, with its lag."""


M = TypeVar("M", bound=Dated)
V = TypeVar("V")


class Mirrored(msgspec.Struct, Generic[M], frozen=True):
    """The mirror's word, and whether it must be marked as stale."""

    value: M
    stale: bool


class Choice:
    """
    Decides between a mirror and its ledger, read by read.

    `ledger` is the breaker for reads that Postgres is only preferred for: while it fails, a reader who can be
    served by a mirror that lags does not wait for it first.
    """

    def __init__(self, pending: PendingWrites, ledger: Breaker) -> None:
        self._pending = pending
        self._ledger = ledger

    async def read(
        self,
        ask: Callable[[tuple[Token, ...]], Awaitable[M]],
        count: Callable[[], Awaitable[Answer[V]]],
        *,
        demand: Demand,
        own: tuple[Token, ...],
    ) -> Mirrored[M] | Answer[V]:
        """
        Answer from the store that the table above names.

        `ask` reads the mirror if that has the writes it is given, and raises `Behind` if not; `count`
        reads Postgres. `own` are the writes of this process that the reader should see. Raises what
        `count` raises, when nothing else can answer.
        """
        demanded = () if demand.token is None else (demand.token,)
        found: M | None = None
        try:
            found = await ask((*demanded, *own))
        except Behind:
            pass
        except Unavailable:
            return await count()
        else:
            self._pending.shown(own)
            if _lag_ms(found) <= (FRESH_LAG_MS if demand.exact else PREFERRED_LAG_MS):
                return Mirrored(found, stale=_lag_ms(found) > FRESH_LAG_MS)
        if _lag_ms(found) > USABLE_LAG_MS or (found is None and not own):
            return await count()
        try:
            return await self._preferably(count)
        except Unavailable:
            pass
        if found is None:
            try:
                found = await ask(demanded)
            except Behind:
                # It is the token's write that is missing: then Postgres is not preferred but needed.
                return await count()
        return Mirrored(found, stale=True)

    async def _preferably(self, count: Callable[[], Awaitable[Answer[V]]]) -> Answer[V]:
        with self._ledger.guarding():
            return await count()


def _lag_ms(found: Dated | None) -> int:
    return 0 if found is None else found.board.lag_ms or 0
