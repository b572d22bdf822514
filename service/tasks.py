"""Ending the tasks of a process for good."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_AGAIN_SECONDS = 0.5


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """
    Cancel tasks, and return when all have ended, however they did.

    More than once if need be: `asyncio.wait_for` of Python 3.11, which drivers use, loses a cancellation that
    comes in the same turn as what it waits for.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        ended, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)
        for task in ended:
            # Counts as seen, whatever it is.
            task.cancelled() or task.exception()
