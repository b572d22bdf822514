"""Every write against every other, through two instances: nothing is lost, nothing deadlocks, both stores agree."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import psycopg
import pytest

from service.app import opened
from service.errors import IdTaken, NotFound, OutcomeUnknown, RatingOutOfRange, StoreBug, Unavailable, UsernameTaken
from service.model import MAX_RATING, MIN_RATING, NewRating, NewUser, OnceOnly, UserId
from service.ranking.ladder import Ladder
from service.ranking.writing import Written
from service.settings import Settings
from service.store import writing
from service.store.feed import Feed
from tests.faults.clients import until_equal
from tests.ranking.equality import assert_mirror_equals_ledger, ready

pytestmark = pytest.mark.alone

USERS = [UserId(f"user-{number:02}") for number in range(12)]


async def instances(stack: AsyncExitStack, settings: Settings) -> list[Ladder]:
    """Two of the product over the same stores."""
    ladders = [await stack.enter_async_context(opened(settings)) for _ in range(2)]
    for ladder in ladders:
        await ready(ladder)
    await asyncio.gather(*(ladders[0].create(NewUser(user, f"name-{user}", 2500)) for user in USERS))
    return ladders


async def test_no_delta_is_lost_among_deltas_batches_and_keys(settings: Settings) -> None:
    """The sum of all that were answered is what is there, and each answer says the rating before it."""
    async with AsyncExitStack() as stack:
        ladders = await instances(stack, settings)

        async def add(number: int) -> Written:
            once = OnceOnly(f"key-{number}", b"same") if number % 3 == 0 else None
            return await ladders[number % 2].rate(USERS[number % 4], number % 7 - 3, relative=True, once=once)

        written = await asyncio.gather(*(add(number) for number in range(300)))
        again = await asyncio.gather(*(add(number) for number in range(0, 300, 3)))

        assert [write.user for write in written[::3]] == [write.user for write in again]
        for index, user_id in enumerate(USERS[:4]):
            deltas = [number % 7 - 3 for number in range(300) if number % 4 == index]
            assert 2500 + sum(deltas) == (await ladders[0].user(user_id)).value.user.rating
        assert all(
            (write.previous_rating or 0) + number % 7 - 3 == write.user.rating for number, write in enumerate(written)
        )
        await assert_mirror_equals_ledger(settings)


async def test_who_was_created_is_told_so_whatever_is_wrong_with_the_rest_of_the_batch(
    ladder: Ladder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why another could not be is asked after the commit: an error there is theirs, and carries nobody out again."""

    async def refused(*_: object) -> None:
        raise StoreBug

    monkeypatch.setattr(writing, "clashes", refused)
    await ladder.create(NewUser(USERS[0], "ada", 2500))
    created, clashed = await asyncio.gather(
        ladder.create(NewUser(USERS[1], "bob", 2500)),
        ladder.create(NewUser(USERS[0], "eve", 2500)),
        return_exceptions=True,
    )

    assert isinstance(created, Written)
    assert isinstance(clashed, StoreBug)


async def test_of_concurrent_repetitions_one_writes_and_all_get_its_answer(settings: Settings) -> None:
    """Sixteen through two instances, of a delta and of a creation, again and again."""
    async with AsyncExitStack() as stack:
        ladders = await instances(stack, settings)
        for turn in range(1, 11):
            once, other = OnceOnly(f"delta-{turn}", b"same"), OnceOnly(f"creation-{turn}", b"same")
            added = await asyncio.gather(
                *(ladders[number % 2].rate(USERS[0], 1, relative=True, once=once) for number in range(16))
            )
            created = await asyncio.gather(
                *(
                    ladders[number % 2].create(NewUser(UserId(f"{turn}-{number}"), f"new-{turn}", 1000), once=other)
                    for number in range(16)
                )
            )
            for written in (added, created):
                assert 1 == len({(write.user, write.placed) for write in written})
                assert 15 == sum(write.replayed for write in written)
            assert 2500 + turn == added[0].user.rating
        await assert_mirror_equals_ledger(settings)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=pytest.mark.slow)])
async def test_all_writes_at_once_end_in_equal_stores(settings: Settings, rounds: int) -> None:
    """Ratings, deltas, many at once, renames to each other's names, deletions and creations: only honest refusals."""
    refusals = (NotFound, UsernameTaken, IdTaken, RatingOutOfRange)
    async with AsyncExitStack() as stack:
        ladders = await instances(stack, settings)

        async def write(number: int) -> object:  # noqa: PLR0911  one of each
            ladder, user = ladders[number % 2], random.choice(USERS)
            match number % 7:
                case 0:
                    some = random.sample(USERS, 6)
                    return await ladder.rate_all([NewRating(user, random.randint(100, 5000)) for user in some])
                case 1:
                    return await ladder.rename(user, f"name-{random.choice(USERS)}")
                case 2:
                    return await ladder.remove(user)
                case 3:
                    return await ladder.create(NewUser(user, f"name-{random.choice(USERS)}", 1000))
                case 4:
                    return await ladder.rate(user, random.randint(100, 5000))
                case 5:
                    once = OnceOnly(f"{number}", b"same")
                    return await ladder.create(NewUser(user, f"NAME-{random.choice(USERS)}", 1000), once=once)
                case _:
                    return await ladder.rate(user, random.randint(-2000, 2000), relative=True)

        for turn in range(rounds):
            outcomes = await asyncio.gather(
                *(write(1000 * turn + number) for number in range(140)), return_exceptions=True
            )
            failed = [
                outcome
                for outcome in outcomes
                if isinstance(outcome, BaseException) and not isinstance(outcome, refusals)
            ]
            assert all(isinstance(error, Unavailable) and "just been removed" in str(error) for error in failed), failed
            await until_equal(settings)


async def test_a_put_of_a_deletion_that_comes_late_buries_nobody(settings: Settings, ladder: Ladder) -> None:
    """Deleted and born again: the board has the living one, whichever put comes last."""
    await ready(ladder)
    for turn in range(20):
        await ladder.create(NewUser(USERS[0], "phoenix", 1000 + turn))
        outcomes = await asyncio.gather(
            ladder.remove(USERS[0]), ladder.create(NewUser(USERS[0], "phoenix", 2000)), return_exceptions=True
        )
        assert not any(isinstance(outcome, (OutcomeUnknown, AssertionError)) for outcome in outcomes)
        # Who was created during the deletion is stamped again, after their version was told: then it is the tailer's.
        await until_equal(settings)
        if await _exists(ladder):
            await ladder.remove(USERS[0])


async def _exists(ladder: Ladder) -> bool:
    try:
        await ladder.user(USERS[0])
    except NotFound:
        return False
    return True


async def test_the_whole_range_is_reached_and_not_left(settings: Settings, ladder: Ladder) -> None:
    """To the last point, and no further, also in one batch."""
    await ready(ladder)
    await ladder.create(NewUser(USERS[0], "edge", MIN_RATING))
    steps = await asyncio.gather(
        *(ladder.rate(USERS[0], 1000, relative=True) for _ in range(6)), return_exceptions=True
    )

    assert 2 == sum(isinstance(step, RatingOutOfRange) for step in steps)
    assert MAX_RATING == (await ladder.rate(USERS[0], 900, relative=True)).user.rating
    await assert_mirror_equals_ledger(settings)


async def test_old_keys_are_forgotten_and_new_ones_stay(settings: Settings, ladder: Ladder) -> None:
    """What is older than a day goes, however much it is."""
    await ladder.create(NewUser(USERS[0], "kept", 1000), once=OnceOnly("new", b"request"))
    async with await psycopg.AsyncConnection.connect(settings.database_url, autocommit=True) as session:
        await session.execute(
            "INSERT INTO idempotency_keys (key, request, created_at)"
            " SELECT 'old-' || n, '', now() - interval '25 hours' FROM generate_series(1, 2500) n"
        )
        async with Feed(settings.database_url) as feed:
            await feed.forget()
        left = await (await session.execute("SELECT key FROM idempotency_keys")).fetchall()

    assert [("new",)] == left
