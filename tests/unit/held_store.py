"""A store that a test holds back and lets go, and calls that are gathered into batches over it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from service.ranking.coalesce import Coalescer

if TYPE_CHECKING:
    from collections.abc import Sequence


class Store:
    """Answers each item in upper case; remembers the batches, and keeps them under way while it is held."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.failing: dict[str, Exception] = {}
        self.under_way = 0
        self.most_under_way = 0
        self._changed = asyncio.Condition()
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        """Keep batches under way from now on."""
        self._open.clear()

    def release(self) -> None:
        """Let them end."""
        self._open.set()

    async def begun(self, batches: int) -> None:
        """Return once so many batches have begun."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.batches) >= batches)

    async def run(self, items: Sequence[str]) -> list[str | Exception]:
        """Carry a batch out: fail with what is set for one of its items, or answer."""
        async with self._changed:
            self.batches.append(list(items))
            self._changed.notify_all()
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self._open.wait()
        finally:
            self.under_way -= 1
        for item in items:
            if item in self.failing:
                raise self.failing[item]
        return [item.upper() for item in items]


def reads(store: Store, **options: Any) -> Coalescer[str, str]:
    """Calls that may share a place."""
    return Coalescer(store.run, shared=True, **options)


def writes(store: Store, **options: Any) -> Coalescer[str, str]:
    """Calls that are each carried out; the first letter is the key."""
    return Coalescer(store.run, shared=False, keys=lambda item: item[:1], **options)


async def called(coalescer: Coalescer[str, str], *items: str) -> list[asyncio.Task[str]]:
    """Make calls, each in a task of its own; returns when all of them are waiting."""
    tasks = [asyncio.create_task(coalescer(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


async def turns(number: int) -> None:
    """Let the loop go round."""
    for _ in range(number):
        await asyncio.sleep(0)
