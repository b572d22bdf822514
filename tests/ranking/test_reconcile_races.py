"""A reconciliation in the middle of a storm of writes undoes none of them, and can be cut off anywhere."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest
import redis

from service.model import NewRating, NewUser, Rated, UserId
from service.ranking import reconcile as reconcile_module
from service.ranking.ladder import Ladder
from service.ranking.repair import GRACE_SECONDS
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store import redis as redis_store
from service.store.ledger import Ledger
from service.store.mirror import Mirror
from service.store.postgres import Postgres
from tests.ranking.equality import assert_mirror_equals_ledger, ready
from tests.ranking.reconciling import BOARD, NOTE, STATE, USERS, Session, counts, insert, interfering, place, reconcile

STORM_SECONDS = 2.5
WRITERS = 6
IDS = 60


@pytest.fixture
def ledger(database_url: str) -> Iterator[Session]:
    """A session of somebody who writes SQL by hand."""
    with psycopg.connect(database_url, autocommit=True) as session:
        yield session


@pytest.fixture
def board(redis_url: str) -> Iterator[redis.Redis]:
    """A session of somebody who looks at Redis, or tampers with it."""
    with redis.Redis.from_url(redis_url, protocol=2) as session:
        yield session


@pytest.fixture(params=range(3))
async def storm(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Storm]:
    """Writers of several seeds, with connections of their own."""
    postgres = Postgres(settings.database_url, write_connections=WRITERS)
    client = redis_store.connect(settings.redis_url, answer_seconds=2)
    await postgres.open()
    yield Storm(request.param, postgres, Mirror(client))
    await postgres.close()
    await client.aclose()


@pytest.fixture
async def many(ledger: Session, settings: Settings, mirror: Mirror) -> None:
    """A board of 900 users."""
    insert(ledger, 900)
    await Tailer(settings.database_url, mirror).catch_up()


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


async def test_a_storm_is_not_undone(storm, ledger, board, settings, mirror) -> None:
    """
    With no tailer to help, puts late or lost, and no grace: passes one after the other never take a user back to
    an older version and never forget one; the tail then leaves an exact board, without another load.
    """
    insert(ledger, IDS, "id")
    tailer = Tailer(settings.database_url, mirror)
    await tailer.catch_up()
    epoch = board.hget(STATE, "epoch")
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
    assert storm.writes > 100
    assert watcher.result() > 20
    assert sum(report.repaired for report in passes) > 0
    assert [] == [report for report in passes if report.ahead or report.corrupt or report.miscount or report.remaining]
    assert {} == counts(await reconcile(settings))


async def test_a_busy_service_is_no_drift(ladder: Ladder, ledger, settings) -> None:
    """Beside a service that carries its writes over, a pass with the usual grace never raises an alarm."""
    insert(ledger, IDS, "id")
    await ready(ladder)
    over = False

    async def write(number: int) -> None:
        turn = 0
        while not over:
            turn += 1
            await ladder.rate(UserId(f"id{1 + (turn * WRITERS + number) % IDS}"), 1400 + turn % 200)
            if turn % 10 == 0:
                await ladder.create(NewUser(UserId(f"new-{number}-{turn}"), f"new-{number}-{turn}", 1500))

    writers = [asyncio.create_task(write(number)) for number in range(WRITERS)]
    passes = [await reconcile(settings, grace_seconds=GRACE_SECONDS) for _ in range(4)]
    over = True
    await asyncio.gather(*writers)

    assert [{}] * 4 == [counts(report) for report in passes]


async def test_two_passes_without_a_lock_do_no_harm(ledger, board, settings, mirror, monkeypatch) -> None:
    """The lock saves work; what keeps the board right is that a repair replaces only what was seen."""
    insert(ledger, 500)
    await Tailer(settings.database_url, mirror).catch_up()
    board.zrem(BOARD, *(place(number) for number in range(1, 300)))
    board.hdel(USERS, *(f"user{number}" for number in range(400, 450)))

    async def unlocked(*_: object) -> bool:
        return True

    monkeypatch.setattr("service.store.feed.Feed.try_lock", unlocked)
    reports = await asyncio.gather(*(reconcile(settings) for _ in range(2)), return_exceptions=True)

    # The second one to set the size right finds that it is no longer off by so much.
    assert any(not isinstance(report, BaseException) for report in reports)
    await assert_mirror_equals_ledger(settings)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("cut", range(1, 14, 2))
async def test_whoever_is_cut_off_is_gone_on_with(board, settings, monkeypatch, cut) -> None:
    """Cut off before any step, also with suspects that only it knew of: the next pass leaves an exact board."""
    monkeypatch.setattr(reconcile_module, "PAGES", 1)
    monkeypatch.setattr(reconcile_module, "_NOTE_SECONDS", 0)
    # The first pages are whole, so that there is a place to go on from when the last ones are not.
    for number in range(501, 900, 50):
        board.zrem(BOARD, place(number))
        board.hdel(USERS, f"user{number + 1}")
    board.zadd(BOARD, {"stranger~x": 1})
    steps = 0

    def die(_: str) -> None:
        nonlocal steps
        steps += 1
        if steps == cut:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await reconcile(settings, inspection=interfering(die), grace_seconds=0.05)
    noted = board.get(NOTE)
    report = await reconcile(settings)

    assert report.run_id.encode() in (noted or report.run_id.encode())
    assert 0 == report.remaining
    await assert_mirror_equals_ledger(settings)
    assert {} == counts(await reconcile(settings))


@pytest.mark.parametrize("field", ["epoch", "server", "file", "source", "terms", "garbage"])
async def test_a_place_on_other_ground_means_nothing(ledger, board, settings, mirror, field) -> None:
    """A note of another board, server, table, or with other permissions is not gone on with."""
    insert(ledger, 50)
    await Tailer(settings.database_url, mirror).catch_up()
    with pytest.raises(InterruptedError):
        await reconcile(settings, inspection=interfering(_die_at("board")))
    note = board.get(NOTE)
    board.set(NOTE, note.replace(b'"%s":' % field.encode(), b'"%s":"x","was":' % field.encode(), 1), ex=60)
    if field == "terms":
        board.set(NOTE, note.replace(b'"dry_run":false', b'"dry_run":true', 1), ex=60)
    elif field == "garbage":
        board.set(NOTE, b"{", ex=60)
    board.hdel(USERS, "user1")

    assert 1 == (await reconcile(settings)).missing


def _die_at(loop: str) -> Callable[[str], None]:
    def die(step: str) -> None:
        if step == loop:
            raise InterruptedError

    return die
