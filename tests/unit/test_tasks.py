"""Tasks that are ended have ended, however hard of hearing."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from service import tasks


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    """As one in Python 3.11's `wait_for` may; one that fails does not keep the others."""
    lost = 0

    async def hard_of_hearing() -> None:
        nonlocal lost
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        lost += 1
        await asyncio.sleep(60)

    async def failing() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError

    started = [asyncio.create_task(hard_of_hearing()), asyncio.create_task(failing())]
    await asyncio.sleep(0)
    await tasks.end(started)

    assert 1 == lost
    assert started[0].cancelled()
    assert isinstance(started[1].exception(), ValueError)
    await tasks.end([])
