"""
A circuit breaker: a store that keeps failing is left alone for a while, so that nobody waits for it.

Decision logic over a clock that is passed in; it calls no store itself. It opens after several
failures in a row, or when more than half of many recent calls failed. Open, it refuses at once; after
a pause it lets one call through as a probe, whose outcome closes it or doubles the pause.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from service import metrics
from service.errors import NotReady, Overloaded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BreakerState = Literal["closed", "open", "half-open"]

FAILURES_IN_A_ROW = 5
WINDOW_SECONDS = 10
WINDOW_CALLS = 20
"""Calls in the window from which on the share of failures counts."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 10.0
JITTER = 0.2
"""A pause is up to this share longer or shorter, so that processes do not probe in step."""


class Breaker:
    """
    Guards the calls of one process to one store.

    Args:
        name: What is guarded, for the message of the refusal and the metric.
        changed: Called with the new state whenever it changes.
        clock: Seconds, never falling.
        jitter: A number between the two it is given.

    """

    def __init__(
        self,
        name: str,
        *,
        changed: Callable[[BreakerState], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._name = name
        self._changed = changed
        self._clock = clock
        self._jitter = jitter
        self._state: BreakerState = "closed"
        # Grows with every change of state: what a call of an earlier time brings back decides nothing.
        self._era = 0
        self._failed_in_a_row = 0
        self._window: list[tuple[int, int, int]] = []  # (second, calls, failures), oldest first
        self._pause = FIRST_PAUSE_SECONDS
        self._probe_at = 0.0
        metrics.breaker_turned(name, self._state)

    @property
    def state(self) -> BreakerState:
        """Whether calls pass, are refused, or wait for the verdict of a probe."""
        return self._state

    @property
    def admits(self) -> bool:
        """Whether a call would pass now, as the probe if the breaker is open."""
        return self._state == "closed" or (self._state == "open" and self._clock() >= self._probe_at)

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """
        Run the block if the store may be called, and count how it went; a block that is cancelled counts as nothing.

        Raises `Unavailable` at once, without running the block, while the breaker is open. Only
        `Unavailable` out of the block is a failure. `Overloaded` counts as nothing; any other error, and `NotReady`,
        is the answer of a store that works. O(1).
        """
        era = self._admit()
        try:
            yield
        except NotReady:
            self._succeeded(era)
            raise
        except Overloaded:
            # Our own lack of a connection says nothing about the store.
            self._gave_up(era)
            raise
        except Unavailable:
            self._failed(era)
            raise
        except Exception:
            self._succeeded(era)
            raise
        except BaseException:
            self._gave_up(era)
            raise
        else:
            self._succeeded(era)

    def _admit(self) -> int:
        if self._state == "open" and self._clock() >= self._probe_at:
            self._turn("half-open")
            return self._era  # the probe: whoever comes next finds it half-open
        if self._state != "closed":
            message = f"{self._name} failed repeatedly and is left alone for a moment"
            raise Unavailable(message)
        return self._era

    def _succeeded(self, era: int) -> None:
        if era != self._era:
            return
        if self._state == "half-open":
            self._pause = FIRST_PAUSE_SECONDS
            self._window.clear()
            self._turn("closed")
        self._failed_in_a_row = 0
        self._count(failures=0)

    def _failed(self, era: int) -> None:
        if era != self._era:
            return
        if self._state == "half-open":
            self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
            self._open()
            return
        self._failed_in_a_row += 1
        self._count(failures=1)
        calls, failures = (sum(second[place] for second in self._window) for place in (1, 2))
        if self._failed_in_a_row >= FAILURES_IN_A_ROW or (calls >= WINDOW_CALLS and failures * 2 > calls):
            self._open()

    def _gave_up(self, era: int) -> None:
        # A probe without a verdict: the next caller is the probe.
        if era == self._era and self._state == "half-open":
            self._probe_at = self._clock()
            self._turn("open")

    def _open(self) -> None:
        self._failed_in_a_row = 0
        self._probe_at = self._clock() + self._pause * self._jitter(1 - JITTER, 1 + JITTER)
        self._turn("open")

    def _turn(self, state: BreakerState) -> None:
        self._state = state
        self._era += 1
        metrics.breaker_turned(self._name, state)
        self._changed(state)

    def _count(self, *, failures: int) -> None:
        second = int(self._clock())
        if self._window and self._window[-1][0] == second:
            _, calls, failed = self._window.pop()
            self._window.append((second, calls + 1, failed + failures))
            return
        self._window = [held for held in self._window if held[0] > second - WINDOW_SECONDS]
        self._window.append((second, 1, failures))
