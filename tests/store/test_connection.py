"""A connection to Redis is replaced when it is old, or when an answer raised doubt; and knows its server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from service.store import connection, lua
from service.store import redis as redis_store
from service.store.redis import Client
from tests.servers.own_redis import OwnRedis, own_redis


@pytest.fixture(scope="module")
def server() -> Iterator[OwnRedis]:
    """A server that may be told to hide things."""
    with own_redis() as started:
        started.start()
        yield started


async def number_of(client: Client) -> int:
    """The number that the server has given to the connection."""
    (number,) = await lua.pipeline(client, [("CLIENT", "ID")])
    return int(number)


async def test_a_connection_is_used_until_it_is_old(server: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address may lead elsewhere by then, without any answer that would tell."""
    async with redis_store.connect(server.url) as client:
        assert await number_of(client) == await number_of(client)
    monkeypatch.setattr(connection, "MOST_SECONDS", 0)
    async with redis_store.connect(server.url) as client:
        assert await number_of(client) != await number_of(client)


async def test_doubt_replaces_every_connection_to_the_address_once(server: OwnRedis) -> None:
    """Of all clients in this process; what was made since is not doubted again within a second."""
    async with redis_store.connect(server.url) as client, redis_store.connect_feed(server.url) as feeding:
        before = [await number_of(client), await number_of(feeding)]
        connection.doubt(client)
        after = [await number_of(client), await number_of(feeding)]
        assert set(before).isdisjoint(after)
        connection.doubt(feeding)

        assert after == [await number_of(client), await number_of(feeding)]


async def test_a_connection_knows_its_server(server: OwnRedis) -> None:
    """It tells the run_id with every call; a server may hide it."""
    run = str(server.command("INFO", "server")["run_id"])
    async with redis_store.connect(server.url) as client:
        assert (run, [True]) == await lua.transaction(client, [("PING",)])
    with redis.Redis.from_url(server.url) as operator:
        operator.execute_command("ACL", "SETUSER", "guest", "on", ">pass", "~*", "&*", "+@all", "-info")
    async with redis_store.connect(server.url.replace("unix://", "unix://guest@") + "?password=pass") as client:
        assert ("", [True]) == await lua.transaction(client, [("PING",)])
