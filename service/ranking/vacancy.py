"""
Whether the board of another history is still fed by that history.

A failover and a test copy of production look the same: the same database of the same cluster, on a later timeline.
The difference is in the board: after a failover nothing feeds it any more; beside a copy, production goes on, and each
of its cycles, idle ones too, writes a new token.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.store.mirror import State

QUIET_SECONDS = 1.5
"""A board whose token does not change for this long (six cycles) is not fed."""
AFTER_FEEDING_SECONDS = 60.0
"""As `QUIET_SECONDS`, after the board was seen to be fed: production may be restarted beside a waiting copy."""


class Vacancy:
    """What one process has seen of a board of another history."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen = ("", "")
        self._since = self._fed_at = -math.inf

    @property
    def source(self) -> str:
        """The history whose board was seen last."""
        return self._seen[0]

    @property
    def is_fed(self) -> bool:
        """Whether the board was seen to be fed in the last `AFTER_FEEDING_SECONDS`."""
        return self._clock() - self._fed_at < AFTER_FEEDING_SECONDS

    def look(self, state: State | None) -> bool:
        """
        Note the board's present token; return whether the board may be taken. O(1).

        A missing board may be taken at once, unless it was seen to be fed: then the other history loads it again.
        """
        now = self._clock()
        if state is not None and (state.source, state.token) != self._seen:
            if state.source == self._seen[0]:
                self._fed_at = now
            self._seen, self._since = (state.source, state.token), now
        return not self.is_fed and (state is None or now - self._since >= QUIET_SECONDS)
