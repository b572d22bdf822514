"""
Gather concurrent calls into batches: the one mechanism against herds, instead of locks and page caches.

A batch goes out at once when there is room for one (no timer, unless `beside` holds it back); what arrives meanwhile
gathers for the next. A call never joins a batch that is already under way, so every answer comes from a store call that
began after the request had arrived: nothing is kept, so nothing expires or needs invalidating.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from service import metrics
from service.errors import Locked, OutcomeUnknown, Overloaded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

I = TypeVar("I")  # noqa: E741  the item asked for
R = TypeVar("R")


class _Call(Generic[I, R]):
    """An item that waits for its batch, with a future per caller: one caller's cancellation leaves the others alone."""

    __slots__ = ("deadline", "is_late", "item", "keys", "results", "wake")

    def __init__(self, item: I, keys: Sequence[Hashable], deadline: float, wake: Callable[[], None]) -> None:
        self.item = item
        self.keys = keys
        self.deadline = deadline
        self.wake = wake
        self.is_late = False
        self.results: list[asyncio.Future[R]] = []

    def succeed(self, result: R) -> None:
        for waiting in self.results:
            if not waiting.done():
                waiting.set_result(result)

    def fail(self, error: Exception) -> None:
        for waiting in self.results:
            if not waiting.done():
                waiting.set_exception(error)

    def give_up(self) -> None:
        for waiting in self.results:
            waiting.cancel()


BEHIND = 8
"""Calls that may wait behind one whose result comes later: each of them keeps its caller waiting for seconds."""


class Turns:
    """
    The order of writes that have a key in common: one at a time, as they came, whichever coalescer carries them.

    A call has its turn when it is the first of each of its keys, and keeps it until it is carried out, even if its
    caller has given up. It joins all its queues at once, so no two calls can wait for each other.
    """

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[_Call[Any, Any]]] = {}
        self.late = 0
        """Calls whose result comes later."""

    def is_blocked(self, keys: Sequence[Hashable]) -> bool:
        """Whether `BEHIND` calls wait already for one of these keys behind a call whose result comes later. O(keys)."""
        queues = (self._queues.get(key) for key in keys)
        return any(queue and queue[0].is_late and len(queue) > BEHIND for queue in queues)

    def join(self, call: _Call[Any, Any]) -> None:
        """Queue a call. O(keys)."""
        for key in call.keys:
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = deque((call,))
            else:
                queue.append(call)

    def has_come(self, call: _Call[Any, Any]) -> bool:
        """Whether every earlier call of its keys has been carried out. O(keys)."""
        for key in call.keys:  # noqa: SIM110  most calls have no key, and a generator costs each of them more than the rest
            if self._queues[key][0] is not call:
                return False
        return True

    def leave(self, call: _Call[Any, Any]) -> None:
        """Remove a call from its queues and wake the next ones. O(keys); O(calls of a key) if it never had its turn."""
        for key in call.keys:
            queue = self._queues[key]
            queue.remove(call)
            if queue:
                queue[0].wake()
            else:
                del self._queues[key]


class Coalescer(Generic[I, R]):
    """
    Turns single calls into batches of different items.

    `run` takes a batch and returns a result per item, in order. An exception in place of a result is that item's own. A
    future is a result that comes later; the batch ends without waiting for it. If `run` itself raises `Unavailable` or
    `OutcomeUnknown`, every caller gets that error. After any other error, which must mean that nothing was changed, the
    items are run again one by one, so that a bad one fails alone.

    Args:
        shared: Calls for equal items that have not gone out yet share one place in the batch (reads). Otherwise each
            call is carried out; calls with a key in common go one at a time, in the order they came (writes).
        keys: Returns the keys of an item.
        turns: The queues of the keys, shared by coalescers that have keys in common.
        max_batch: Items in a batch.
        max_in_flight: Batches under way.
        beside: Seconds for which a batch goes alone, unless the next one is full by then. Larger batches are cheaper;
            after that time a slow batch must not hold up the next.
        max_waiting: Items that may gather; beyond it a call raises `Overloaded`. Behind a call whose result comes
            later only `BEHIND` of the same key may; beyond it a call raises `Locked`.
        patience: Seconds after which a call that still waits for its batch raises `Overloaded`.
        name: The label of its batch sizes in the metrics.

    """

    def __init__(
        self,
        run: Callable[[Sequence[I]], Awaitable[Sequence[R | Exception | asyncio.Future[R]]]],
        *,
        shared: bool,
        keys: Callable[[I], Sequence[Hashable]] = lambda _: (),
        turns: Turns | None = None,
        max_batch: int = 128,
        max_in_flight: int = 2,
        beside: float = 0.0,
        max_waiting: int = 10_000,
        patience: float = 2.0,
        name: str = "other",
    ) -> None:
        self._run = run
        self._shared = shared
        self._keys = keys
        self._turns = turns or Turns()
        self._max_batch = max_batch
        self._free = self._most = max_in_flight
        self._beside = beside
        self._alone_until = -math.inf
        self._next: asyncio.TimerHandle | None = None
        self._max_waiting = max_waiting
        self._patience = patience
        self._sizes = metrics.BATCH_SIZE.labels(name)
        self._waiting: list[_Call[I, R]] = []
        self._joinable: dict[I, _Call[I, R]] = {}
        self._scheduled = False
        self._expiry: asyncio.TimerHandle | None = None
        self._batches: set[asyncio.Future[Any]] = set()

    async def __call__(self, item: I) -> R:
        """Return the item's result; being cancelled gives up the result, not the batch."""
        loop = asyncio.get_running_loop()
        call = self._joinable.get(item) if self._shared else None
        if call is None:
            if len(self._waiting) >= self._max_waiting:
                raise Overloaded
            keys = () if self._shared else self._keys(item)
            if self._turns.late and self._turns.is_blocked(keys):
                raise Locked
            call = _Call(item, keys, loop.time() + self._patience, self._wake)
            self._waiting.append(call)
            if self._shared:
                self._joinable[item] = call
            self._turns.join(call)
            self._wake()
        result: asyncio.Future[R] = loop.create_future()
        call.results.append(result)
        return await result

    async def drain(self) -> None:
        """Return when nothing waits and nothing is under way."""
        while self._batches or self._waiting:
            await asyncio.wait(self._batches) if self._batches else await asyncio.sleep(0)

    def _wake(self) -> None:
        # Not at once: requests that the event loop reads in the same turn go out together.
        if self._free > 0 and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._send)
        elif self._free == 0:
            self._watch()

    def _watch(self) -> None:
        # One timer for all, because the oldest call has the earliest deadline.
        if self._waiting and self._expiry is None:
            self._expiry = asyncio.get_running_loop().call_at(self._waiting[0].deadline, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        now = asyncio.get_running_loop().time()
        late = [call for call in self._waiting if call.deadline <= now]
        self._waiting = [call for call in self._waiting if call.deadline > now]
        for call in late:
            self._expired(call)
        self._watch()

    def _expired(self, call: _Call[I, R]) -> None:
        if self._shared:
            self._joinable.pop(call.item, None)
        call.fail(Overloaded())
        self._turns.leave(call)

    def _send(self) -> None:
        self._scheduled = False
        while self._free > 0 and not self._must_wait() and (batch := self._take()):
            self._free -= 1
            if self._beside:
                self._alone_until = asyncio.get_running_loop().time() + self._beside
            self._sizes.observe(len(batch))
            # An empty context: what a batch logs belongs to none of the requests in it.
            task = asyncio.create_task(self._carry_out(batch), context=contextvars.Context())
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)
        self._watch()

    def _must_wait(self) -> bool:
        if self._free == self._most or len(self._waiting) >= self._max_batch:
            return False
        loop = asyncio.get_running_loop()
        if loop.time() >= self._alone_until:
            return False
        if self._next is None and self._waiting:
            self._next = loop.call_at(self._alone_until, self._go_on)
        return True

    def _go_on(self) -> None:
        self._next = None
        self._wake()

    def _take(self) -> list[_Call[I, R]]:
        now = asyncio.get_running_loop().time()
        batch: list[_Call[I, R]] = []
        rest: list[_Call[I, R]] = []
        for call in self._waiting:
            if call.deadline <= now:
                self._expired(call)
            elif len(batch) < self._max_batch and self._turns.has_come(call):
                if self._shared:
                    self._joinable.pop(call.item, None)
                batch.append(call)
            else:
                rest.append(call)
        self._waiting = rest
        return batch

    async def _carry_out(self, batch: Sequence[_Call[I, R]]) -> None:
        over = set(batch)
        try:
            for call, result in zip(batch, await self._results([call.item for call in batch]), strict=True):
                if isinstance(result, asyncio.Future):
                    over.discard(call)
                    self._follow(call, result)
                elif isinstance(result, Exception):
                    call.fail(result)
                else:
                    call.succeed(result)
        finally:
            for call in over:
                call.give_up()  # only if this task was cancelled: else the call is done
                self._turns.leave(call)
            self._free += 1
            self._wake()

    def _follow(self, call: _Call[I, R], outcome: asyncio.Future[R]) -> None:
        self._batches.add(outcome)
        call.is_late = True
        self._turns.late += 1

        def end(_: asyncio.Future[R]) -> None:
            self._batches.discard(outcome)
            self._turns.late -= 1
            if outcome.cancelled():
                call.give_up()
            elif error := outcome.exception():
                call.fail(error if isinstance(error, Exception) else Unavailable())
            elif isinstance(result := outcome.result(), Exception):
                call.fail(result)
            else:
                call.succeed(result)
            self._turns.leave(call)

        outcome.add_done_callback(end)

    async def _results(self, items: Sequence[I]) -> Sequence[R | Exception | asyncio.Future[R]]:
        try:
            return await self._run(items)
        except (Unavailable, OutcomeUnknown) as error:
            return [error] * len(items)
        except Exception as error:  # noqa: BLE001  whatever it is belongs to the callers, not to this task
            if len(items) == 1:
                return [error]
            return [result for item in items for result in await self._results([item])]
