"""Another session holds a lock on one user, or is taking one name: every other write goes on as without it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence

import psycopg
import pytest

from service.errors import IdTaken, LadderError, Locked, NotFound, Unavailable, UsernameTaken
from service.model import NewRating, NewUser, OnceOnly, UserId
from service.ranking import lock_waits
from service.ranking.coalesce import BEHIND
from service.ranking.ladder import Ladder
from service.ranking.writing import Written
from service.settings import Settings
from tests.faults.clients import until_equal
from tests.ranking.equality import ready

ADA = UserId("user-000")
OTHERS = [UserId(f"user-{number:03}") for number in range(1, 101)]
SLOWER, SLACK_SECONDS = 3, 0.25
"""How much longer others may take beside a lock: what else the machine does, and the parts of a batch of creations."""


@contextlib.asynccontextmanager
async def session(settings: Settings) -> AsyncIterator[psycopg.AsyncConnection]:
    """A session of another program."""
    async with await psycopg.AsyncConnection.connect(settings.database_url) as connection:
        yield connection


@contextlib.asynccontextmanager
async def locked(settings: Settings, user_id: UserId) -> AsyncIterator[psycopg.AsyncConnection]:
    """A transaction that holds a user until the end of the block."""
    async with session(settings) as connection:
        await connection.execute("SELECT FROM users WHERE id = %s FOR UPDATE", (user_id,))
        yield connection
        await connection.rollback()


async def populate(ladder: Ladder) -> None:
    """Create the users of these tests, at 1500."""
    await ready(ladder)
    await asyncio.gather(*(ladder.create(NewUser(user, f"name-{user}", 1500)) for user in (ADA, *OTHERS)))


Write = Callable[[Ladder, UserId, int], Coroutine[None, None, object]]
WRITES: dict[str, Write] = {
    "set": lambda ladder, user, turn: ladder.rate(user, 1600 + turn),
    "add": lambda ladder, user, _: ladder.rate(user, 1, relative=True),
    "create": lambda ladder, user, turn: ladder.create(NewUser(UserId(f"{user}-{turn}"), f"new-{user}-{turn}", 1500)),
    "rename": lambda ladder, user, turn: ladder.rename(user, f"other-{user}-{turn}"),
    "many": lambda ladder, user, turn: ladder.rate_all([NewRating(user, 1600 + turn)]),
    "once": lambda ladder, user, turn: ladder.rate(user, 1600 + turn, once=OnceOnly(f"{user}-{turn}", b"same")),
    "delete": lambda ladder, user, _: ladder.remove(user),
}


async def seconds(work: Sequence[Awaitable[object]]) -> float:
    """How long all of it takes, which succeeds."""
    begun = time.monotonic()
    await asyncio.gather(*work)
    return time.monotonic() - begun


@pytest.mark.parametrize("kind", WRITES)
async def test_others_do_not_wait_for_a_locked_user(ladder: Ladder, settings: Settings, kind: str) -> None:
    """A hundred writes of others take what they take alone; that of the locked user is refused after two seconds."""
    await populate(ladder)
    write, some = WRITES[kind], OTHERS[:50]
    alone = await seconds([write(ladder, user, 1) for user in some])
    rest = OTHERS[50:] if kind == "delete" else some
    async with contextlib.AsyncExitStack() as stack:
        if kind == "create":
            connection = await stack.enter_async_context(session(settings))
            await connection.execute(
                "INSERT INTO users (id, username, rating) VALUES (%s, %s, 1500)", ("x", f"new-{ADA}-2")
            )
        else:
            await stack.enter_async_context(locked(settings, ADA))
        begun = time.monotonic()
        waiting = asyncio.create_task(write(ladder, ADA, 2))
        beside = await seconds([write(ladder, user, 2) for user in rest])
        later = await seconds([write(ladder, user, 3) for user in rest if kind != "delete"])
        with pytest.raises(Unavailable):
            await waiting
        refused_after = time.monotonic() - begun

    assert beside < SLOWER * alone + SLACK_SECONDS
    assert later < SLOWER * alone + SLACK_SECONDS
    assert lock_waits.SECONDS - 0.1 < refused_after < lock_waits.SECONDS + 1
    await until_equal(settings)


@pytest.mark.parametrize("kind", ["set", "add", "rename", "many", "once", "delete"])
async def test_a_write_is_carried_out_when_the_lock_is_gone(ladder: Ladder, settings: Settings, kind: str) -> None:
    """Once, and it sees what the other session has written."""
    await populate(ladder)
    async with locked(settings, ADA) as other:
        waiting = asyncio.create_task(WRITES[kind](ladder, ADA, 1))
        await ladder.rate(OTHERS[0], 1700)
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await other.execute("UPDATE users SET rating = 2000 WHERE id = %s", (ADA,))
        await other.commit()
        written = await waiting

    if kind == "add":
        assert isinstance(written, Written)
        assert (2000, 2001) == (written.previous_rating, written.user.rating)
    if kind == "delete":
        with pytest.raises(NotFound):
            await ladder.user(ADA)
    await until_equal(settings)


async def test_a_name_that_is_being_taken_is_taken_or_free_in_the_end(ladder: Ladder, settings: Settings) -> None:
    """Many names at once; who waits for one that is given up gets it."""
    await populate(ladder)
    users = [NewUser(UserId(f"new-{number}"), f"Name{number}", 1500) for number in range(60)]
    async with session(settings) as kept, session(settings) as given_up:
        for connection, number in ((kept, 3), (given_up, 4), (kept, 40)):
            await connection.execute(
                "INSERT INTO users (id, username, rating) VALUES (%s, %s, 1500)", (f"x{number}", f"name{number}")
            )
        await kept.execute("INSERT INTO users (id, username, rating) VALUES ('new-41', 'another', 1500)")
        creating = [asyncio.create_task(ladder.create(user)) for user in users]
        await asyncio.wait([task for number, task in enumerate(creating) if number not in (3, 4, 40, 41)])
        await given_up.rollback()
        await kept.commit()
        outcomes = await asyncio.gather(*creating, return_exceptions=True)

    refused = {number: type(outcome) for number, outcome in enumerate(outcomes) if isinstance(outcome, LadderError)}
    assert {3: UsernameTaken, 40: UsernameTaken, 41: IdTaken} == refused
    await until_equal(settings)


async def test_writes_of_a_locked_user_keep_their_order(ladder: Ladder, settings: Settings) -> None:
    """Each waits for the one before it: every answer shows the rating that the one before has left."""
    await populate(ladder)
    async with locked(settings, ADA):
        writing = [
            asyncio.create_task(ladder.rate(ADA, number, relative=True, once=once))
            for number in range(1, 11)
            for once in [OnceOnly(f"key-{number}", b"same") if number % 3 == 0 else None]
        ]
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in writing)
    written = await asyncio.gather(*writing)

    assert [1500 + sum(range(number)) for number in range(1, 11)] == [each.previous_rating for each in written]
    await until_equal(settings)


async def test_many_locked_users_get_their_turns(ladder: Ladder, settings: Settings) -> None:
    """Twenty are held for good; those whose locks go meanwhile are not kept by them."""
    await populate(ladder)
    async with session(settings) as long, session(settings) as short:
        await long.execute("SELECT FROM users WHERE id = ANY(%s) FOR UPDATE", (OTHERS[:20],))
        await short.execute("SELECT FROM users WHERE id = ANY(%s) FOR UPDATE", (OTHERS[20:40],))
        writing = [asyncio.create_task(ladder.rate(user, 1700)) for user in OTHERS]
        await asyncio.gather(*writing[40:])
        await short.rollback()
        begun = time.monotonic()
        await asyncio.gather(*writing[20:40])
        assert time.monotonic() - begun < lock_waits.SECONDS
        await long.rollback()
        outcomes = await asyncio.gather(*writing[:20], return_exceptions=True)

    assert all(isinstance(outcome, Written | Unavailable) for outcome in outcomes)
    await until_equal(settings)


async def test_a_crowd_at_a_locked_user_is_refused_at_once(ladder: Ladder, settings: Settings) -> None:
    """Each would keep the turn of a request for two seconds, and all of them together everybody else's."""
    await populate(ladder)
    async with locked(settings, ADA):
        first = asyncio.create_task(ladder.rate(ADA, 1600))
        await ladder.rate(OTHERS[0], 1600)
        begun = time.monotonic()
        crowd = [asyncio.create_task(ladder.rate(ADA, 1700 + number)) for number in range(50)]
        await asyncio.wait(crowd[BEHIND:])
        assert time.monotonic() - begun < lock_waits.SECONDS / 2
        assert all(isinstance(task.exception(), Locked) for task in crowd[BEHIND:])
    assert isinstance(await first, Written)
    await asyncio.gather(*crowd[:BEHIND])
    await until_equal(settings)
