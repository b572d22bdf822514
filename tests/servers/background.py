"""An event loop beside a test that has none, or that blocks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """An event loop in a thread, so that a test may wait for servers while its clients and proxies go on."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Begin, and do not wait."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Return what comes of it."""
        return self.start(work).result(30)

    def call(self, function: Any, *arguments: Any) -> None:
        """Call a function in the loop."""

        async def called() -> None:
            function(*arguments)

        self.run(called())

    def stop(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    @contextlib.contextmanager
    def entered(self, way: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Have something open in the loop until the end of the block."""
        entered = self.run(way.__aenter__())
        try:
            yield entered
        finally:
            self.run(way.__aexit__(None, None, None))


@contextlib.contextmanager
def background() -> Iterator[Background]:
    """A loop that ends with the block."""
    made = Background()
    try:
        yield made
    finally:
        made.stop()
