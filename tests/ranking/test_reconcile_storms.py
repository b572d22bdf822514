"""
Deleting, creating, renaming and rating users at full speed during reconciliations never removes or regresses a row.

Twenty seeds by default, the other 180 with `scripts/test -m slow tests/ranking/test_reconcile_storms.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import redis

from service.model import NewRating, NewUser, Rated, UserId
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store import redis as redis_store
from service.store.ledger import Ledger
from service.store.mirror import Mirror
from service.store.postgres import Postgres
from tests.ranking.equality import assert_mirror_equals_ledger
from tests.ranking.reconciling import STATE, USERS, counts, insert, reconcile

STORM_SECONDS = 1.2
WRITERS = 6
IDS = 60
DEFAULT_SEEDS, ALL_SEEDS = 20, 200


class Storm:
    """Writers that commit as the service does, but whose puts are late or lost, and sometimes SQL by hand."""

    def __init__(self, seed: int, postgres: Postgres, mirror: Mirror) -> None:
        self._random = random.Random(seed)
        self._ledger = Ledger(postgres)
        self._postgres, self._mirror = postgres, mirror
        self._puts: set[asyncio.Task[object]] = set()
        self.over = False
        self.writes = 0

    async def blow(self) -> None:
        """Write until it is over."""
        while not self.over:
            user_id = UserId(f"id{self._random.randrange(IDS)}")
            action = self._random.choice(("create", "rate", "rate", "rename", "delete"))
            if action == "create":
                name = f"name{self._random.randrange(2 * IDS)}"
                self._put(await self._ledger.create([NewUser(user_id, name, self._random.randint(1490, 1510))]))
            elif action == "rate":
                self._put(await self._ledger.rate([NewRating(user_id, self._random.randint(1490, 1510))]))
            else:
                await self._by_hand(action, user_id)
            self.writes += 1

    async def _by_hand(self, action: str, user_id: UserId) -> None:
        async with self._postgres.writes.connection() as connection:
            if action == "delete":
                await connection.execute("DELETE FROM users WHERE id = %s", (user_id,))
            else:
                name = f"other{self._random.randrange(10**9)}"
                await connection.execute("UPDATE users SET username = %s WHERE id = %s", (name, user_id))

    def _put(self, outcomes: Sequence[Rated | Exception]) -> None:
        rated = [outcome for outcome in outcomes if isinstance(outcome, Rated)]
        if rated and self._random.random() < 0.8:
            task = asyncio.create_task(self._late(rated, self._random.choice((0, 0, 0.002, 0.05))))
            self._puts.add(task)
            task.add_done_callback(self._puts.discard)

    async def _late(self, rated: list[Rated], seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._mirror.put(rated, source="")

    async def settle(self) -> None:
        """Let the last puts arrive."""
        await asyncio.gather(*self._puts)


async def watch(board: redis.Redis, storm: Storm) -> int:
    """Look at every user again and again: a version never falls, and nobody who was known is forgotten."""
    seen: dict[bytes, int] = {}
    looks = 0
    while not storm.over:
        fields: dict[Any, Any] = board.hgetall(USERS)
        held = {user_id: int(value.partition(b"|")[0]) for user_id, value in fields.items()}
        assert {user_id: version for user_id, version in seen.items() if held.get(user_id, -1) < version} == {}
        seen = held
        looks += 1
        await asyncio.sleep(0.005)
    return looks


@contextlib.asynccontextmanager
async def brewing(seed: int, settings: Settings) -> AsyncIterator[Storm]:
    """A storm of one seed, with connections of its own."""
    postgres = Postgres(settings.database_url, write_connections=WRITERS)
    client = redis_store.connect(settings.redis_url, answer_seconds=2)
    await postgres.open()
    try:
        yield Storm(seed, postgres, Mirror(client))
    finally:
        await postgres.close()
        await client.aclose()


@pytest.mark.parametrize(
    "seed",
    [*range(DEFAULT_SEEDS), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(DEFAULT_SEEDS, ALL_SEEDS))],
)
async def test_a_storm_is_not_undone(seed, ledger, board, settings, mirror) -> None:
    """
    With no tailer to help, puts late or lost, and no grace: passes one after the other never take a user back to
    an older version and never forget one; the tail then leaves an exact board, without another load.
    """
    insert(ledger, IDS, "id")
    tailer = Tailer(settings.database_url, mirror)
    await tailer.catch_up()
    epoch = board.hget(STATE, "epoch")
    async with brewing(seed, settings) as storm:
        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(storm.blow())
            watcher = group.create_task(watch(board, storm))
            deadline, passes = time.monotonic() + STORM_SECONDS, []
            while time.monotonic() < deadline:
                passes.append(await reconcile(settings, grace_seconds=0))
            storm.over = True
        await storm.settle()
    await tailer.catch_up()

    assert epoch == board.hget(STATE, "epoch")
    await assert_mirror_equals_ledger(settings)
    assert storm.writes > 50
    assert watcher.result() > 5
    assert sum(report.repaired for report in passes) > 0
    assert [] == [report for report in passes if report.ahead or report.corrupt or report.miscount or report.remaining]
    assert {} == counts(await reconcile(settings))
