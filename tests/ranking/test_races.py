"""Concurrent writers through several instances leave the mirror equal to Postgres, row by row."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from service.app import opened
from service.model import NewUser, UserId
from service.ranking.ladder import Ladder
from service.settings import Settings
from tests.ranking.equality import assert_mirror_equals_ledger, ready

USERS = [UserId(f"user-{number:02}") for number in range(20)]


async def _two_instances(stack: AsyncExitStack, settings: Settings) -> list[Ladder]:
    ladders = [await stack.enter_async_context(opened(settings)) for _ in range(2)]
    # Both: until a process knows which history Postgres is, its puts are left to the tailer.
    for ladder in ladders:
        await ready(ladder)
    return ladders


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rounds", [10, pytest.param(50, marks=pytest.mark.slow)])
async def test_racing_updates_leave_an_exact_mirror(settings: Settings, rounds: int) -> None:
    """200 concurrent updates of 20 users through two instances: equal row by row, every time."""
    async with AsyncExitStack() as stack:
        ladders = await _two_instances(stack, settings)
        await asyncio.gather(*(ladders[0].create(NewUser(user, f"name-{user}", 1500)) for user in USERS))
        for _ in range(rounds):
            writes = await asyncio.gather(
                *(
                    ladders[number % 2].rate(USERS[number % 20], random.randint(1490, 1510))
                    for number in random.sample(range(200), 200)
                )
            )

            assert all(write.placed.outcome in ("applied", "superseded") for write in writes)
            assert all(write.placed.rank is not None and write.placed.position is not None for write in writes)
            await assert_mirror_equals_ledger(settings)


async def test_a_taken_name_is_given_to_one_of_many(settings: Settings) -> None:
    """Of 40 concurrent creations of one name, in every mix of case, through two instances one succeeds."""
    async with AsyncExitStack() as stack:
        ladders = await _two_instances(stack, settings)
        outcomes = await asyncio.gather(
            *(
                ladders[number % 2].create(
                    NewUser(UserId(f"id-{number}"), "".join(random.choice((c, c.upper())) for c in "magnus"), 1000)
                )
                for number in range(40)
            ),
            return_exceptions=True,
        )

        assert 39 == sum(isinstance(outcome, Exception) for outcome in outcomes)
        await assert_mirror_equals_ledger(settings)


async def test_conditional_updates_admit_one_winner_per_version(settings: Settings) -> None:
    """Of 30 concurrent updates that all name the same version exactly one is carried out."""
    async with AsyncExitStack() as stack:
        ladders = await _two_instances(stack, settings)
        created = await ladders[0].create(NewUser(USERS[0], "somebody", 1500))
        outcomes = await asyncio.gather(
            *(
                ladders[number % 2].rate(USERS[0], 1600 + number, wanted=(created.user.version,))
                for number in range(30)
            ),
            return_exceptions=True,
        )

        assert 1 == sum(not isinstance(outcome, Exception) for outcome in outcomes)
        await assert_mirror_equals_ledger(settings)
