"""REDIS_URL names a server that cannot be the mirror: Postgres answers everything, and an operator is told why, once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import httpx
import msgspec
import pytest
import redis
from structlog.testing import capture_logs

from service.api.health import examine
from service.app import opened
from service.ranking.ladder import Ladder
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store import redis as redis_store
from service.store.history import History
from service.store.mirror import Mirror
from tests.api.serving import serving
from tests.ranking.equality import ready
from tests.servers.own_redis import another_kind, free_port, own_redis

from .readers import ADA, assert_seen, populate, served_by_redis, until


@contextlib.contextmanager
def sentinel() -> Iterator[str]:
    """A Sentinel."""
    with another_kind("--sentinel") as url:
        yield url


@contextlib.contextmanager
def cluster(slots: str) -> Iterator[str]:
    """A node of a cluster that owns these slots."""
    with another_kind("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--save", "") as url:
        with redis.Redis.from_url(url) as node:
            if slots:
                node.execute_command("CLUSTER ADDSLOTSRANGE", *slots.split("-"))
            node.config_set("cluster-require-full-coverage", "no")
        yield url


@contextlib.contextmanager
def without_scripts() -> Iterator[str]:
    """A server that has no EVALSHA, as some proxies."""
    with another_kind("--save", "", "--rename-command", "EVALSHA", "") as url:
        yield url


@contextlib.contextmanager
def with_password() -> Iterator[str]:
    """A server that wants to know a password."""
    with another_kind("--save", "", "--requirepass", "secret") as url:
        yield url


@contextlib.contextmanager
def limited(*rules: str) -> Iterator[str]:
    """A server at which our user may do everything but what these rules forbid."""
    with own_redis() as server:
        server.start()
        with redis.Redis.from_url(server.url) as operator:
            operator.execute_command("ACL SETUSER", "ladder", "on", "nopass", "~*", "&*", "+@all", *rules)
        yield server.url.replace("unix://", "unix://ladder:any@")


@contextlib.contextmanager
def without_database() -> Iterator[str]:
    """A server with fewer databases."""
    with own_redis() as server:
        server.start()
        yield f"{server.url}?db=99"


BOARD_SLOT = "6644"
SERVERS: dict[str, tuple[Callable[[], AbstractContextManager[str]], str]] = {
    "sentinel": (sentinel, "names a Sentinel"),
    "cluster, all slots": (lambda: cluster("0-16383"), "Cluster"),
    "cluster, the board's slot": (lambda: cluster(f"{BOARD_SLOT}-{BOARD_SLOT}"), "Cluster"),
    "cluster, another slot": (lambda: cluster("0-0"), "Cluster"),
    "cluster, no slot": (lambda: cluster(""), "Cluster"),
    "no scripts": (without_scripts, "Lua scripts"),
    "password": (with_password, "AuthenticationError"),
    "no right to run scripts": (lambda: limited("-@scripting"), "Lua scripts"),
    "no right to the board": (lambda: limited("resetkeys", "~user:*"), "refuses a command"),
    "no database of that number": (without_database, "DB index is out of range"),
}


CANNED = {
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "protocol"),
    "memcached": (b"ERROR\r\n", "protocol"),
    "a proxy that forbids commands": (b"-unsupported command 'x'\r\n", "refuses a command"),
    "nothing but OK": (b"+OK\r\n", "refuses a command"),
    "nothing but nil": (b"$-1\r\n", "cannot be used"),
    "nothing but errors": (b"-ERR no\r\n", "refuses a command"),
    "moved": (b"-MOVED 6644 127.0.0.1:7001\r\n", "Cluster"),
    "moved, malformed": (b"-MOVED somewhere\r\n", "protocol"),
    "ask, malformed": (b"-ASK\r\n", "protocol"),
}


@contextlib.asynccontextmanager
async def canned(reply: bytes) -> AsyncIterator[str]:
    """The URL of a server that answers each command with the same bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while asked := await reader.read(65536):
                writer.write(reply * asked.count(b"*"))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


async def assert_survived(settings: Settings, word: str) -> None:
    """Every read is right and from Postgres, writes are pending, health says why, and the log says so once."""
    with capture_logs() as logs:
        async with opened(settings) as ladder:
            await until(lambda: _told(logs, word))
            await populate(ladder)
            written = await ladder.rate(ADA, 1600)
            assert "pending" == written.placed.outcome
            for _ in range(3):
                assert {"postgres"} == await assert_seen(ladder, written)
            assert "postgres" == (await ladder.standings.rank(ADA)).source
            assert "postgres" == (await ladder.standings.neighbors(ADA, radius=1)).source
            assert "postgres" == (await ladder.standings.rows([ADA])).source
            health = await examine(ladder)
            assert ("degraded", False) == (health.status, health.mirror.ready)
            assert health.mirror.reason

    told = [entry for entry in logs if entry["log_level"] in ("warning", "error") and word in str(entry.get("reason"))]
    assert 1 == len([entry for entry in told if entry["event"] in ("mirror.withheld", "tail.interrupted")])
    assert 1 >= len([entry for entry in logs if entry["event"] in ("mirror.read_failed", "tail.failed")])


async def _told(logs: Sequence[Mapping[str, object]], word: str) -> bool:
    return any(word in str(entry.get("reason")) for entry in logs)


async def test_what_redis_lacks_says_nothing_of_the_way_to_postgres(database_url: str) -> None:
    """A pooler that shares its sessions is found by the same kind of error, and takes no write."""
    history = History()
    with without_database() as url, capture_logs() as logs:
        async with redis_store.connect_feed(url) as client:
            following = asyncio.create_task(Tailer(database_url, Mirror(client), history=history).run())
            await until(lambda: _told(logs, "names a database"))
            assert not history.is_shared
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


@pytest.mark.parametrize("kind", SERVERS)
async def test_another_kind_of_redis_is_refused_by_its_name(kind: str, settings: Settings) -> None:
    """With the reason that an operator needs; no read is an error."""
    begin, word = SERVERS[kind]
    with begin() as url:
        await assert_survived(msgspec.structs.replace(settings, redis_url=url), word)


@pytest.mark.parametrize("kind", CANNED)
async def test_what_is_no_redis_at_all_is_survived(kind: str, settings: Settings) -> None:
    """Whatever it answers: the product does not take part in its protocol."""
    reply, word = CANNED[kind]
    async with canned(reply) as url:
        await assert_survived(msgspec.structs.replace(settings, redis_url=url), word)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--min-replicas-to-write", "1"), "cannot be used now (NOREPLICAS)"),
        (("--rename-command", "ZADD", ""), "refuses a command"),
    ],
    ids=["takes no writes", "lacks a command"],
)
async def test_health_says_why_a_board_cannot_be_loaded(options: Sequence[str], words: str, settings: Settings) -> None:
    """The server's refusal, and not that there is no board yet, which would look as if waiting helped."""
    with another_kind("--save", "", *options) as url:
        async with opened(msgspec.structs.replace(settings, redis_url=url)) as ladder:
            await populate(ladder)

            async def is_told() -> bool:
                return words in str((await examine(ladder)).mirror.reason)

            await until(is_told)
            assert {"postgres"} == await assert_seen(ladder, await ladder.rate(ADA, 1600))


async def test_a_server_that_refuses_one_kind_of_read_is_not_well(settings: Settings) -> None:
    """It may not say what it is: a node that owns the board's slot ranks, and refuses users. They come from Postgres."""
    with cluster(f"{BOARD_SLOT}-{BOARD_SLOT}") as url:
        with redis.Redis.from_url(url) as operator:
            operator.execute_command("ACL SETUSER", "ladder", "on", "nopass", "~*", "&*", "+@all", "-info", "-cluster")
        own = msgspec.structs.replace(settings, redis_url=url.replace("redis://", "redis://ladder:any@"))
        async with opened(own) as ladder:
            await populate(ladder)
            await ready(ladder)
            await until(lambda: served_by_redis(ladder))
            for _ in range(3):
                assert "postgres" == (await ladder.user(ADA)).source
            health = await examine(ladder)

    assert "degraded" == health.status
    assert "Cluster" in str(health.mirror.reason)


async def test_a_defect_of_the_mirror_is_answered_by_postgres(settings: Settings, ladder: Ladder) -> None:
    """A script that raises is our own fault; each read that met it is right all the same."""
    await populate(ladder)
    await ready(ladder)
    await until(lambda: served_by_redis(ladder))
    with redis.Redis.from_url(settings.redis_url) as operator, capture_logs() as logs:
        operator.hset("{ladder}:state", "applied", "not a number")
        written = await ladder.rate(ADA, 1600)
        assert {"postgres"} == await assert_seen(ladder, written)
        assert "degraded" == (await examine(ladder)).status
        operator.delete("{ladder}:state")
        await until(lambda: served_by_redis(ladder))

    assert 1 >= len([entry for entry in logs if entry["event"] == "tail.failed"])


def test_health_and_reads_over_http_are_never_500(database_url: str) -> None:
    """With the address of a Sentinel; every route, and the probes of a balancer."""
    with sentinel() as url, serving(database_url, url) as service:
        service.created("ada", id="ada")
        answers: list[httpx.Response] = [
            service.get(target)
            for target in (
                "/users/ada", "/users/ada/rank", "/users/ada/neighbors", "/leaderboard", "/ratings/1500",
                "/ratings/distribution", "/users/search?username=a", "/health", "/health/ready", "/metrics",
            )
            for _ in range(3)
        ]  # fmt: skip
        answers.append(service.put("ada", 1600))
        health = service.get("/health").json()

        assert {200} == {answer.status_code for answer in answers}
        assert "pending" == answers[-1].headers["x-mirror-write"]
        assert "degraded" == health["status"]
        assert "Sentinel" in health["mirror"]["reason"]
        assert 1 == sum("names a Sentinel" in str(line.get("reason")) for line in service.logged())
        assert [] == service.defects()
