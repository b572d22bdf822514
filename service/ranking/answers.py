"""What a read gives back: the value, and everything that says how far it may be trusted."""

from __future__ import annotations

from datetime import datetime
from typing import Generic, TypeVar

import msgspec

from service.model import RankSource, Standing, Token, User, UserId

V = TypeVar("V")


class Demand(msgspec.Struct, frozen=True):
    """How fresh a reader wants an answer: not from before the token's write, and `no_cache`: as fresh as can be."""

    token: Token | None = None
    no_cache: bool = False

    @property
    def exact(self) -> bool:
        """Whether an answer of a second ago will not do."""
        return self.no_cache or self.token is not None

    @property
    def since(self) -> tuple[Token, ...]:
        """The writes that an answer must not be from before."""
        return () if self.token is None else (self.token,)


ANY = Demand()
"""The demand of a reader who says nothing."""


class Answer(msgspec.Struct, Generic[V], frozen=True):
    """
    A read's value, and what ranked it.

    `lag_ms` tells how far the mirror may have lagged (None from Postgres, and from a mirror whose lag is unknown: that
    is stale), `as_of` from when on changes may be missing in a rank from the histogram. `stale`: older than is
    promised, for want of better.
    """

    value: V
    source: RankSource
    lag_ms: int | None = None
    as_of: datetime | None = None
    stale: bool = False


class Seen(msgspec.Struct, frozen=True):
    """A user and where they stand, both of the same version."""

    user: User
    standing: Standing


class Ranked(msgspec.Struct, frozen=True):
    """Where a user stands, and among how many; all of one instant."""

    id: UserId
    rating: int
    rank: int
    position: int
    total: int


def percentile(*, above: int, total: int) -> float | None:
    """Return the share of users with this rating or a lower one, in percent to 2 places; None of nobody."""
    return round(100 * (total - above) / total, 2) if total else None
