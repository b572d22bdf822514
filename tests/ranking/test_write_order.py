"""Writes of one user in one process go one after the other, in the order they came, whichever way each goes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine

from service.errors import LadderError, NotFound
from service.model import NewRating, NewUser, OnceOnly, UserId
from service.ranking.ladder import Ladder
from service.ranking.writing import Written
from service.settings import Settings
from tests.faults.clients import until_equal
from tests.ranking.equality import ready

USERS = [UserId(f"user-{number}") for number in range(6)]
ROUNDS = 8


async def test_every_way_waits_for_the_others(ladder: Ladder, settings: Settings) -> None:
    """
    Each write tells the rating before it: that of the write of this user that was begun before.

    Also what was begun last: a deletion is behind all ratings, and the creation behind the deletion.
    """
    await ready(ladder)
    await asyncio.gather(*(ladder.create(NewUser(user, f"name-{user}", 1000)) for user in USERS))
    ways: list[Callable[[UserId, int], Coroutine[None, None, object]]] = [
        lambda user, _: ladder.rate(user, 1, relative=True),
        lambda user, number: ladder.rate(user, 1, relative=True, once=OnceOnly(f"{user}-{number}", b"same")),
        lambda user, number: ladder.rename(user, f"name-{user}-{number}"),
        lambda user, _: ladder.rate_all([NewRating(each, 1, None, True) for each in (user, _next(user))]),
    ]
    expected = dict.fromkeys(USERS, 1000)
    writing, before = [], []
    for number in range(ROUNDS):
        for user in USERS:
            way = random.randrange(len(ways))
            writing.append(asyncio.create_task(ways[way](user, number)))
            before.append((user, expected[user]))
            expected[user] += way != 2
            expected[_next(user)] += way == 3
            if random.random() < 0.2:
                await asyncio.sleep(0)
    ended = [asyncio.create_task(ladder.remove(user)) for user in USERS]
    born = [asyncio.create_task(ladder.create(NewUser(user, f"new-{user}", 2000))) for user in USERS]
    outcomes = await asyncio.gather(*writing)
    await asyncio.gather(*ended, *born)

    for (user, rating), outcome in zip(before, outcomes, strict=True):
        first = outcome[0] if isinstance(outcome, list) else outcome
        assert isinstance(first, Written)
        assert (user, rating) == (first.user.id, first.previous_rating)
    for user in USERS:
        assert 2000 == (await ladder.user(user)).value.user.rating
    await until_equal(settings)


def _next(user: UserId) -> UserId:
    return USERS[(USERS.index(user) + 1) % len(USERS)]


async def test_a_caller_that_gives_up_keeps_its_place(ladder: Ladder) -> None:
    """What it asked for is still under way: the deletion behind it must not overtake it."""
    await ready(ladder)
    await ladder.create(NewUser(USERS[0], "ada", 1000))
    leaving = asyncio.create_task(ladder.rate(USERS[0], 1500))
    removing = asyncio.create_task(ladder.remove(USERS[0]))
    late = asyncio.create_task(ladder.rate(USERS[0], 1600))
    await asyncio.sleep(0)
    leaving.cancel()
    outcomes = await asyncio.gather(removing, late, return_exceptions=True)

    assert not isinstance(outcomes[0], LadderError)
    assert isinstance(outcomes[1], NotFound)
