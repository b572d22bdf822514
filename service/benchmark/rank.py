"""
`benchmark.py rank`: what a rank or a page costs in the stores, by SQL and by the product's scripts, over sizes.

Everybody is asked for in random order. Each way is called on one connection; who begins changes by round.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from contextlib import ExitStack
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import redis
import uvloop

from service.arguments import Unusable
from service.model import UserId
from service.progress import progress
from service.store import redis as redis_store
from service.store.keys import BoardKeys
from service.store.mirror import Mirror

from . import peers
from .contestants import Asked, User, in_redis, in_sql
from .environment import describe
from .results import Memory, RankResult, Size
from .sessions import session
from .stores import Stores, prepared

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from .contestants import Contestant
    from .results import Environment

WARM_UP_SECONDS = 0.2
_CHECKED = 20
_CHUNK = 5_000
_MOST_ASKED = 1_000_000
_SIZES = "10000,100000,1000000"


def run(options: argparse.Namespace, database_url: str, redis_url: str) -> RankResult:
    """Measure over the stores of these servers."""
    try:
        numbers = [int(word) for word in options.sizes.split(",")]
    except ValueError:
        message = f"--sizes takes whole numbers, separated by commas, not {options.sizes!r}"
        raise Unusable(message) from None
    sizes: list[Size] = []
    missing: list[str] = []
    environment: Environment | None = None
    for users in numbers:
        with prepared(database_url, redis_url, users, keep=options.keep) as stores:
            environment = environment or describe(stores.database_url, stores.redis_url)
            size, missing = _measured(options, stores)
            sizes.append(size)
    if environment is None:
        message = "--sizes names none"
        raise Unusable(message)
    return RankResult(
        environment=environment,
        seconds=options.seconds,
        rounds=options.rounds,
        seed=options.seed,
        sizes=sizes,
        missing=missing,
    )


def _measured(options: argparse.Namespace, stores: Stores) -> tuple[Size, list[str]]:
    source = random.Random(options.seed)  # noqa: S311  the same requests every time
    # As many as can be asked for in any run; of ten million every tenth.
    users = list(islice(_users(stores), 0, None, ceil(stores.users / _MOST_ASKED)))
    asked = Asked(users, stores.users, source)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ladder-benchmark-")))
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        history = runner.run(_history(stores))
        memory = _with_bare_set(stores)
        _check(stores, runner, history, asked)
        ids_file = folder / "ids.txt"
        order = source.sample(users, len(users))
        ids_file.write_text("\n".join(user.id for user in order), encoding="ascii")
        found, missing = peers.find(options, stores.redis_url, ids_file)
        ways = [
            *stack.enter_context(in_sql(stores.database_url, asked)),
            *stack.enter_context(in_redis(stores.redis_url, history, asked, runner)),
            *peers.contestants(found),
        ]
        _race(ways, options, stores.users)
        with redis.Redis.from_url(stores.redis_url) as client:
            client.unlink(peers.KEY)
    return Size(stores.users, [way.timing for way in ways], memory), missing


def _race(ways: Sequence[Contestant], options: argparse.Namespace, users: int) -> None:
    with progress(f"Measured with {users:,} users", options.rounds * len(ways)) as report:
        done = 0
        for number in range(options.rounds):
            for way in ways if number % 2 == 0 else reversed(ways):
                way.measure(min(WARM_UP_SECONDS, options.seconds))
                way.timing.samples.append(way.measure(options.seconds))
                done += 1
                report(done, f"{way.timing.name}: {1000 * way.timing.samples[-1].p50_ms:,.0f} us")


async def _history(stores: Stores) -> str:
    async with redis_store.connect_feed(stores.redis_url) as client:
        state = await Mirror(client).state()
    if state is None or not state.ready:
        message = "the board is not ready, or another process uses it"
        raise Unusable(message)
    return state.source


def _users(stores: Stores) -> Iterator[User]:
    with session(stores.database_url) as connection, connection.cursor("users") as cursor:
        cursor.itersize = _CHUNK
        cursor.execute("SELECT id, username, rating FROM users ORDER BY id")
        for row in cursor:
            yield User(*row)


def _with_bare_set(stores: Stores) -> Memory:
    """Make the sorted set that one would make by hand, and weigh it beside ours."""
    keys = BoardKeys.of("ladder")
    with redis.Redis.from_url(stores.redis_url) as client:
        client.delete(peers.KEY)
        rest = _users(stores)
        while chunk := list(islice(rest, _CHUNK)):
            client.zadd(peers.KEY, {user.id: user.rating for user in chunk})
        board, hashed, bare = (
            int(client.memory_usage(key, samples=0) or 0) for key in (keys.board, keys.users, peers.KEY)
        )
    return Memory(board, hashed, bare)


def _check(stores: Stores, runner: asyncio.Runner, history: str, asked: Asked) -> None:
    """See that both stores give the same ranks: what is wrong is not worth measuring."""

    async def ranks(ids: Sequence[UserId]) -> dict[UserId, int]:
        async with redis_store.connect_feed(stores.redis_url) as client:
            _, found = await Mirror(client).standings(ids, source=history)
        return {user_id: standing.rank for user_id, standing in found.items()}

    some = [asked.one() for _ in range(_CHECKED)]
    counted = {}
    with session(stores.database_url) as connection:
        for user in some:
            row = connection.execute("SELECT 1 + count(*) FROM users WHERE rating > %s", [user.rating]).fetchone()
            counted[user.id] = row[0] if row else 0
    if runner.run(ranks(list(counted))) != counted:
        message = "the board and the users' table do not agree"
        raise Unusable(message)
