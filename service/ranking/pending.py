"""
The writes of this process that the mirror does not have yet, so that whoever made one here sees it here.

Kept for a few seconds only: a board that lags less than that has what was committed before, and one that
lags more is not read if Postgres can be.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from service.model import Token, UserId, Version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from service.model import User

KEPT_SECONDS = 15.0
"""Longer than the lag up to which the mirror is preferred (`choice.PREFERRED_LAG_MS`)."""
KEPT_WRITES = 1000
"""As many as one script call looks for. Beyond it the oldest is forgotten; its writer still has a token."""


class PendingWrites:
    """Which version of whom was committed here, and when, without the mirror having confirmed it."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[UserId, tuple[Version, float]] = {}  # in the order of their times

    def add(self, user: User) -> None:
        """Remember a committed write. O(1)."""
        self._kept.pop(user.id, None)
        self._kept[user.id] = (user.version, self._clock())
        if len(self._kept) > KEPT_WRITES:
            del self._kept[next(iter(self._kept))]

    def tokens(self) -> tuple[Token, ...]:
        """Return them all. O(how many)."""
        self._forget()
        return tuple(Token(user_id, version) for user_id, (version, _) in self._kept.items())

    def of(self, user_id: UserId) -> tuple[Token, ...]:
        """Return the one of this user, if there is one. O(1)."""
        self._forget()
        kept = self._kept.get(user_id)
        return () if kept is None else (Token(user_id, kept[0]),)

    def since(self, user_id: UserId) -> float:
        """Return when this user's was committed, by the clock; 0 if there is none. O(1)."""
        kept = self._kept.get(user_id)
        return 0.0 if kept is None else kept[1]

    def shown(self, tokens: Iterable[Token]) -> None:
        """Forget what the mirror was seen to have; a newer write of the same user stays."""
        for token in tokens:
            if self._kept.get(token.id, (0, 0.0))[0] == token.version:
                del self._kept[token.id]

    def _forget(self) -> None:
        oldest = self._clock() - KEPT_SECONDS
        while self._kept and self._kept[first := next(iter(self._kept))][1] < oldest:
            del self._kept[first]
