"""Keeps the board up to date beside whatever else a command does, so that at the end little is left to wait for."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from service.errors import LadderError
from service.ranking.tail import POLL_SECONDS, Tailer
from service.store import redis
from service.store.mirror import Mirror

if TYPE_CHECKING:
    from collections.abc import Iterator

_JOIN_SECONDS = 10


@contextmanager
def following(database_url: str, redis_url: str) -> Iterator[None]:
    """
    Run a tailer in another thread during the block; where a service's runs, that one works and this one looks on.

    Never raises: whoever waits for the board afterwards is told what is wrong.
    """
    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_follow(database_url, redis_url, stop)), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_JOIN_SECONDS)


async def _follow(database_url: str, redis_url: str, stop: threading.Event) -> None:
    async with redis.connect_feed(redis_url) as client:
        work = asyncio.create_task(_keep_up(Tailer(database_url, Mirror(client))))
        while not stop.is_set():  # noqa: ASYNC110  it is set by another thread
            await asyncio.sleep(POLL_SECONDS / 5)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def _keep_up(tailer: Tailer) -> None:
    while True:
        with suppress(LadderError):
            await tailer.catch_up()
        await asyncio.sleep(POLL_SECONDS)
