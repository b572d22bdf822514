"""
Writes that met a lock of another session: tried again one after the other, beside the batches they came from.

A batch that waited for the lock would hold up its other writes, and if each write waited by itself, each would occupy a
connection. Here one connection is enough: each attempt waits a moment in Postgres' queue for the lock, which is fair to
other processes, and then the next write has its turn.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from service.errors import Locked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SECONDS = 2.0
"""How long a lock is waited for in all; then the write is refused, and has changed nothing."""
TURN_MS, SHORTEST_TURN_MS = 100, 10
"""How long one attempt waits: `TURN_MS` divided by the number of waiting writes, but no less than the shortest turn."""
MOST = 100
"""Writes that wait at a time; beyond it one is refused at once."""
_PAUSE_SECONDS = 0.02


class _Wait(NamedTuple):
    attempt: Callable[[int], Awaitable[Any]]
    deadline: float
    outcome: asyncio.Future[Any]


class LockWaits:
    """The writes of one ledger that wait for a lock."""

    def __init__(self) -> None:
        self._queue: deque[_Wait] = deque()
        self._work: asyncio.Task[None] | None = None

    def add(self, attempt: Callable[[int], Awaitable[Any]]) -> asyncio.Future[Any]:
        """
        Return the future outcome of `attempt`, which is called with a patience in ms until it does not raise `Locked`.

        It must have changed nothing when it raises `Locked`. That is also the outcome after `SECONDS`, or at once while
        `MOST` writes wait. O(1).
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Any] = loop.create_future()
        if len(self._queue) >= MOST:
            outcome.set_exception(Locked())
            return outcome
        self._queue.append(_Wait(attempt, loop.time() + SECONDS, outcome))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._run(), context=contextvars.Context())
        return outcome

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            wait = self._queue.popleft()
            try:
                result = await wait.attempt(max(SHORTEST_TURN_MS, TURN_MS // (len(self._queue) + 1)))
            except Locked as error:
                if loop.time() >= wait.deadline:
                    wait.outcome.set_exception(error)
                    continue
                self._queue.append(wait)
                # Two processes whose renames want each other's names must not come back in step.
                await asyncio.sleep(random.uniform(0, _PAUSE_SECONDS))  # noqa: S311  spread, not secrecy
            except Exception as error:  # noqa: BLE001  whatever it is belongs to that write, not to this task
                wait.outcome.set_exception(error)
            else:
                wait.outcome.set_result(result)
