"""A write is on its way when its client leaves, its session is ended, its user is looked up, or Redis refuses."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
import redis

from service.app import opened
from service.model import User, UserId
from service.ranking.answers import Demand
from service.ranking.ladder import Ladder
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store.feed import LOCK
from service.store.ledger import Ledger
from service.store.mirror import Mirror
from tests.api.serving import serving, wait_until
from tests.api.wire import request
from tests.ranking.equality import assert_mirror_equals_ledger, ready
from tests.servers.own_redis import OwnRedis, own_redis

from .clients import Clients, insert, looking_at, measured, until_equal
from .readers import ADA, assert_seen, populate, served_by_redis, timed, until

CROWD = 500
LEAST_ENDED = 10


async def test_a_put_is_made_although_the_client_has_left(settings: Settings, mirror: Mirror) -> None:
    """It hangs up between commit and put. Nobody tails here, so what is in the mirror the put has brought."""
    insert(settings, 1)
    with psycopg.connect(settings.database_url, autocommit=True) as holder:
        await Tailer(settings.database_url, mirror).catch_up()
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        slow = serving(settings.database_url, settings.redis_url, failpoints="after_commit=sleep:0.3@1")
        with slow as service, looking_at(settings) as held:
            before = held("user1")
            body = b'{"rating":1600}'
            sent = request("PUT", "/users/user1/rating", [("Content-Type", "application/json")], body)
            with socket.create_connection(("127.0.0.1", service.settings.port)) as connection:
                connection.sendall(sent)
                wait_until(lambda: service.at_failpoint("after_commit"))
            wait_until(lambda: held("user1") > before)
            await assert_mirror_equals_ledger(settings)

            # The connection to Redis that it used says nothing to others of what was meant for it.
            assert "applied" == service.put("user1", 1700).headers["x-mirror-write"]
            assert [] == service.defects()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("writes", [200, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_no_acknowledged_write_is_lost_when_sessions_are_ended(settings: Settings, writes: int) -> None:
    """Postgres ends sessions at random while they write: a write is answered or unknown, never half and never lost."""
    users = insert(settings, 400)
    dice = random.Random(writes)
    with (
        serving(settings.database_url, settings.redis_url) as service,
        psycopg.connect(settings.database_url, autocommit=True) as killer,
    ):
        wait_until(service.is_mirrored)
        clients = Clients(service, users, clients=10)
        writing = asyncio.create_task(clients.write())
        ended = 0
        while clients.acknowledged < writes or ended < LEAST_ENDED:
            ended += len(
                killer.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ladder'"
                    " AND datname = current_database() AND query LIKE '%%rating%%' ORDER BY random() LIMIT 1"
                ).fetchall()
            )
            await asyncio.sleep(dice.uniform(0.001, 0.1))  # at any moment of a statement
            assert not writing.done(), writing.exception()
        clients.over = True
        await writing
        seconds = await until_equal(settings)
        measured(
            f"{ended} sessions ended: {clients.acknowledged} writes acknowledged, {clients.unknown} unknown,"
            f" {clients.refused} refused, {clients.turned_away} not connected; equal {seconds:.2f} s after the last"
        )

        clients.check()
        assert [] == service.defects()


# What Redis says while it cannot be written to, or cannot run anything


@contextlib.contextmanager
def forgetting_scripts(client: redis.Redis) -> Iterator[None]:
    """NOSCRIPT."""
    client.script_flush()
    yield


@contextlib.contextmanager
def replica(client: redis.Redis) -> Iterator[None]:
    """READONLY: it was made the replica of a server that cannot be reached."""
    client.config_set("replica-serve-stale-data", "yes")
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    yield
    client.execute_command("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def unable_to_save(client: redis.Redis) -> Iterator[None]:
    """MISCONF: a snapshot failed, and it was told to take no writes then."""
    # It cannot be renamed to what is a directory.
    snapshot = Path(str(client.config_get("dir")["dir"])) / "dump.rdb"
    snapshot.mkdir()
    client.config_set("save", "3600 1000000")
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    yield
    snapshot.rmdir()
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok")


@contextlib.contextmanager
def without_replicas(client: redis.Redis) -> Iterator[None]:
    """NOREPLICAS."""
    client.config_set("min-replicas-to-write", 1)
    yield
    client.config_set("min-replicas-to-write", 0)


@contextlib.contextmanager
def busy(client: redis.Redis) -> Iterator[None]:
    """BUSY: somebody's script does not end until it is killed."""
    client.config_set("busy-reply-threshold", 20)

    def run() -> None:
        with redis.Redis.from_url(url_of(client)) as other, contextlib.suppress(redis.RedisError):
            other.eval("while true do end", 0)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: is_busy(client))
    yield
    client.script_kill()
    thread.join()


def url_of(client: redis.Redis) -> str:
    """Where the client's server is."""
    return f"unix://{client.get_connection_kwargs()['path']}"


def is_busy(client: redis.Redis) -> bool:
    """Whether a script has gone on for so long that the server says so."""
    try:
        client.ping()
    except redis.ResponseError:
        return True
    return False


REFUSALS: dict[str, Callable[[redis.Redis], contextlib.AbstractContextManager[None]]] = {
    "NOSCRIPT": forgetting_scripts,
    "READONLY": replica,
    "MISCONF": unable_to_save,
    "NOREPLICAS": without_replicas,
    "BUSY": busy,
}


@pytest.fixture
def server() -> Iterator[OwnRedis]:
    """A server that a test may spoil."""
    with own_redis() as own:
        own.start()
        yield own


@pytest.fixture
async def spoilt(settings: Settings, server: OwnRedis) -> AsyncIterator[tuple[Ladder, Settings]]:
    """A service over that server, its mirror ready and three users on it."""
    own = msgspec.structs.replace(settings, redis_url=server.url)
    async with opened(own) as running:
        await ready(running)
        await populate(running)
        await until(lambda: served_by_redis(running))
        yield running, own


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_redis_that_refuses_costs_no_write(
    spoilt: tuple[Ladder, Settings], server: OwnRedis, refusal: str
) -> None:
    """Writes are committed and pending; reads are right, from wherever; afterwards the board is exact."""
    ladder, own = spoilt
    with redis.Redis.from_url(server.url) as client, REFUSALS[refusal](client):
        for rating in (1600, 1650):
            written = await timed(ladder.rate(ADA, rating))
            assert ("applied" if refusal == "NOSCRIPT" else "pending") == written.placed.outcome
            await assert_seen(ladder, written)
            await assert_seen(ladder, written, Demand(written.token))
    await until(lambda: served_by_redis(ladder))
    await until_equal(own)
    written = await timed(ladder.rate(ADA, 1700))

    assert "applied" == written.placed.outcome
    await assert_seen(ladder, written, Demand(written.token))


# Users who are not cached


async def test_a_crowd_that_misses_the_same_user_asks_postgres_a_few_times(
    ladder: Ladder, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five hundred at once: one SELECT answers those who came while the one before it was under way."""
    await ready(ladder)
    await populate(ladder)
    await until(lambda: served_by_redis(ladder))
    selects = 0
    select = Ledger.users

    async def counting(self: Ledger, ids: Sequence[UserId]) -> dict[UserId, User]:
        nonlocal selects
        selects += 1
        return await select(self, ids)

    monkeypatch.setattr(Ledger, "users", counting)
    with redis.Redis.from_url(settings.redis_url) as client:
        client.delete(f"user:{ADA}")
    answers = await asyncio.gather(*(ladder.user(ADA) for _ in range(CROWD)))

    assert {("redis", ADA)} == {(answer.source, answer.value.user.id) for answer in answers}
    measured(f"{CROWD} misses of one user: {selects} SELECTs")
    assert 1 <= selects <= CROWD // 50


async def test_a_user_read_before_a_write_is_not_cached_after_it(
    ladder: Ladder, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader is held between its SELECT and the filling of the cache: the newer object stays, and is served."""
    await ready(ladder)
    await populate(ladder)
    await until(lambda: served_by_redis(ladder))
    selected, written = asyncio.Event(), asyncio.Event()
    select = Ledger.users

    async def held(self: Ledger, ids: Sequence[UserId]) -> dict[UserId, User]:
        found = await select(self, ids)
        selected.set()
        await written.wait()
        return found

    monkeypatch.setattr(Ledger, "users", held)
    with redis.Redis.from_url(settings.redis_url) as client:
        client.delete(f"user:{ADA}")
        reading = asyncio.create_task(ladder.user(ADA))
        await selected.wait()
        newer = await ladder.rate(ADA, 1600)
        written.set()
        late = await reading
        cached: Any = client.get(f"user:{ADA}")

    assert newer.user.version == int(cached.partition(b"|")[0])
    # It was read before the write, and what it is shown is of one moment.
    assert (late.value.user.rating, late.value.standing.rating) in ((1500, 1500), (1600, 1600))
    await assert_seen(ladder, newer)
