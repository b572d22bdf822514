"""What the tests of faults ask of a service, and what must be true of every answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.errors import LadderError
from service.model import NewUser, UserId, Window
from service.ranking.answers import ANY, Demand
from service.ranking.ladder import Ladder
from service.ranking.writing import Written

T = TypeVar("T")

ADA, BOB, EVE = (UserId(name) for name in ("ada", "bob", "eve"))
DEADLINE_SECONDS = 2.0
"""A call to a store that hangs, then one to the other, with slack for a busy machine."""


async def timed(call: Awaitable[T], seconds: float = DEADLINE_SECONDS) -> T:
    """The answer, or our error, which must come in time."""
    begun = time.monotonic()
    try:
        return await call
    finally:
        assert time.monotonic() - begun < seconds


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Return as soon as the condition holds; one of our errors counts as no."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if await condition():
                return
        except LadderError:
            pass
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)


async def populate(ladder: Ladder) -> None:
    """Create the three users of these tests, at 1500."""
    for user_id in (ADA, BOB, EVE):
        await ladder.create(NewUser(user_id, f"player-{user_id}", 1500))


async def assert_seen(ladder: Ladder, written: Written, demand: Demand = ANY) -> set[str]:
    """Every read shows the write, with the rank that SQL would count; returns what ranked."""
    expected = await ladder.fallback.page(Window(100))
    row = next(row for row in expected.value.rows if row.id == written.user.id)
    assert row.rating == written.user.rating

    user = await timed(ladder.user(written.user.id, demand=demand))
    page, _ = await timed(ladder.page(limit=100, demand=demand))
    found = await timed(ladder.search(written.user.username, limit=5, demand=demand))

    assert written.user == user.value.user
    assert (row.rank, row.position) == (user.value.standing.rank, user.value.standing.position)
    assert expected.value.rows == page.value.rows
    assert [user.value] == [answer.value for answer in found]
    return {user.source, page.source, *(answer.source for answer in found)}


async def served_by_redis(ladder: Ladder) -> bool:
    """Whether pages come from the mirror."""
    answer, _ = await ladder.page(limit=1)
    return answer.source == "redis"
