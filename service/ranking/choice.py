"""
Which store answers a read. The mirror does, unless it lags, or lacks what the answer must show.

| mirror | Postgres up | Postgres down or at its cap |
|---|---|---|
| lag up to 2 s | mirror | mirror |
| lag up to 10 s | mirror, marked stale; Postgres if the reader demands freshness | mirror, marked stale |
| lag beyond 10 s | Postgres | mirror, marked stale, up to an hour |
| lag unknown | Postgres | mirror, marked stale, without a lag |
| may lack something since a call failed | Postgres | mirror, marked stale |
| lacks the write of the reader's token | Postgres | refused |
| not ready, or away | Postgres | refused |
| a defect of ours in reading it | Postgres, and the defect is logged | refused |
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec

from service.errors import Unavailable
from service.ranking.breaker import Breaker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.model import Board
    from service.ranking.answers import Answer, Demand
    from service.ranking.guarded import GuardedMirror

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
    """Decides between a mirror and its ledger, read by read."""

    def __init__(self, mirror: GuardedMirror, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._mirror = mirror
        self._clock = clock
        # For reads that Postgres is only preferred for: while it fails, a reader who can be served by a
        # mirror that lags does not wait for it first.
        self._ledger = Breaker("Postgres", clock=clock)

    async def read(
        self, ask: Callable[[], Awaitable[M]], count: Callable[[], Awaitable[Answer[V]]], *, demand: Demand
    ) -> Mirrored[M] | Answer[V]:
        """
        Answer from the store that the table above names.

        `ask` reads the mirror, and raises `Behind` if that lacks the write of the demand's token; `count`
        reads Postgres. Raises what `count` raises when nothing else can answer.
        """
        # Before the mirror is asked: taken later, the lag would seem to reach back less far than it does.
        asked_at = self._clock()
        try:
            found = await ask()
        except Unavailable:
            return await count()
        except Exception as error:  # noqa: BLE001  whatever is wrong with the mirror, Postgres has the answer
            self._mirror.report_defect(error)
            return await count()
        lag_ms = found.board.lag_ms
        if lag_ms is not None:
            doubtful = self._mirror.is_doubtful(lag_ms, asked_at=asked_at)
            if not doubtful and lag_ms <= (FRESH_LAG_MS if demand.exact else PREFERRED_LAG_MS):
                return Mirrored(found, stale=lag_ms > FRESH_LAG_MS)
            if lag_ms > USABLE_LAG_MS:
                return await count()
        try:
            with self._ledger.guarding():
                return await count()
        except Unavailable:
            return Mirrored(found, stale=True)
