"""A Redis that must not be a mirror is not one, until it is set right: nobody restarts anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import msgspec
import psycopg
import pytest
import redis
from structlog.testing import capture_logs

from service.app import opened
from service.ranking import tail
from service.ranking.ladder import Ladder
from service.settings import Settings
from service.store.feed import LOCK
from tests.ranking.equality import assert_mirror_equals_ledger, ready
from tests.servers.own_redis import OwnRedis, own_redis

from .readers import ADA, assert_seen, populate, served_by_redis, until


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnRedis]:
    """A Redis whose settings are the test's, looked at all the time."""
    monkeypatch.setattr(tail, "EXAMINE_SECONDS", 0.1)
    with own_redis() as started:
        started.start()
        yield started


def reasons(logs: Sequence[Mapping[str, object]], event: str) -> list[str]:
    """What the log says of an event."""
    return [str(entry["reason"]) for entry in logs if entry["event"] == event]


async def test_a_redis_that_may_evict_the_board_is_refused(server: OwnRedis, settings: Settings) -> None:
    """Before the first load, and again when somebody sets it so later; one line each time."""
    own = msgspec.structs.replace(settings, redis_url=server.url)
    with redis.Redis.from_url(server.url) as operator, capture_logs() as logs:
        operator.config_set("maxmemory-policy", "allkeys-lru")
        async with opened(own) as ladder:
            await until(lambda: _said(logs, "mirror.withheld", 1))
            await populate(ladder)
            assert 0 == operator.exists("{ladder}:state")

            operator.config_set("maxmemory-policy", "noeviction")
            await ready(ladder)
            await until(lambda: served_by_redis(ladder))

            operator.config_set("maxmemory-policy", "allkeys-random")
            await until(lambda: _said(logs, "mirror.withheld", 2))
            written = await ladder.rate(ADA, 1600)
            assert "pending" == written.placed.outcome
            assert {"postgres"} == await assert_seen(ladder, written)

            operator.config_set("maxmemory-policy", "volatile-lru")
            await until(lambda: served_by_redis(ladder))
        await assert_mirror_equals_ledger(own)

    assert 2 == len(reasons(logs, "mirror.withheld"))
    assert all("set it to noeviction" in reason for reason in reasons(logs, "mirror.withheld"))


async def _said(logs: Sequence[Mapping[str, object]], event: str, times: int) -> bool:
    return len(reasons(logs, event)) >= times


async def test_a_redis_that_refuses_info_is_warned_of(server: OwnRedis, settings: Settings) -> None:
    """Its failovers cannot be noticed; ranks come from it all the same."""
    with redis.Redis.from_url(server.url) as operator, capture_logs() as logs:
        operator.execute_command("ACL SETUSER", "ladder", "on", "nopass", "~*", "&*", "+@all", "-info", "-config")
        url = server.url.replace("unix://", "unix://ladder:any@")
        async with opened(msgspec.structs.replace(settings, redis_url=url)) as ladder:
            await populate(ladder)
            await until(lambda: served_by_redis(ladder))

    assert 1 == sum("+info" in reason for reason in reasons(logs, "redis.settings"))


async def test_a_replica_is_refused(server: OwnRedis, settings: Settings) -> None:
    """It would take no write; when it is promoted it is loaded."""
    with redis.Redis.from_url(server.url) as operator, capture_logs() as logs:
        operator.replicaof("127.0.0.1", "1")
        async with opened(msgspec.structs.replace(settings, redis_url=server.url)) as ladder:
            await until(lambda: _said(logs, "mirror.withheld", 1))
            await populate(ladder)
            operator.replicaof("NO", "ONE")
            await until(lambda: served_by_redis(ladder))

    assert "name the master" in reasons(logs, "mirror.withheld")[0]


async def test_every_refusal_is_told_in_the_servers_words(server: OwnRedis, settings: Settings) -> None:
    """Once each time: one that is over and comes again is news."""
    with redis.Redis.from_url(server.url) as operator, capture_logs() as logs:
        async with opened(msgspec.structs.replace(settings, redis_url=server.url)) as ladder:
            await populate(ladder)
            for times in (1, 2):
                operator.config_set("min-replicas-to-write", "1")
                await until(partial(_said, logs, "tail.interrupted", times))
                operator.config_set("min-replicas-to-write", "0")
                state = await ladder.mirror_state()
                await until(partial(_fed_since, ladder, state.now_ms if state else 0))

    assert 2 == len(reasons(logs, "tail.interrupted"))
    assert all("NOREPLICAS" in reason for reason in reasons(logs, "tail.interrupted"))


async def _fed_since(ladder: Ladder, moment_ms: int) -> bool:
    state = await ladder.mirror_state()
    return state is not None and state.applied_since(moment_ms)


async def test_who_stands_by_tells_of_a_redis_that_it_cannot_use(server: OwnRedis, settings: Settings) -> None:
    """A password that is wrong in one process of many would show there only when Redis is needed."""
    with psycopg.connect(settings.database_url, autocommit=True) as leader, capture_logs() as logs:
        leader.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        url = server.url.replace("unix://", "unix://nobody@") + "?password=wrong"
        async with opened(msgspec.structs.replace(settings, redis_url=url)):
            await until(partial(_said, logs, "tail.interrupted", 1))

    assert "invalid username-password pair" in reasons(logs, "tail.interrupted")[0]


async def test_what_may_not_be_asked_is_not_complained_of(server: OwnRedis, settings: Settings) -> None:
    """A managed Redis forbids CONFIG: what INFO tells is enough."""
    with redis.Redis.from_url(server.url) as operator, capture_logs() as logs:
        operator.execute_command("ACL", "SETUSER", "guest", "on", ">pass", "~*", "&*", "+@all", "-config")
        url = server.url.replace("unix://", "unix://guest@") + "?password=pass"
        async with opened(msgspec.structs.replace(settings, redis_url=url)) as ladder:
            await populate(ladder)
            await until(lambda: served_by_redis(ladder))

    assert [] == reasons(logs, "redis.settings") + reasons(logs, "mirror.withheld")


async def test_each_warning_is_given_once(server: OwnRedis, settings: Settings) -> None:
    """However often it is looked at; the board is kept all the same."""
    with redis.Redis.from_url(server.url) as operator, capture_logs() as logs:
        operator.config_set("lazyfree-lazy-server-del", "no")
        async with opened(msgspec.structs.replace(settings, redis_url=server.url)) as ladder:
            await populate(ladder)
            await until(lambda: served_by_redis(ladder))
            looks = await _looks(operator)
            await until(lambda: _looked(operator, looks + 10))

    (warning,) = reasons(logs, "redis.settings")
    assert "lazyfree-lazy-server-del" in warning


async def _looks(operator: redis.Redis) -> int:
    stats = operator.info("commandstats")
    return int(stats["cmdstat_config|get"]["calls"]) if "cmdstat_config|get" in stats else 0


async def _looked(operator: redis.Redis, times: int) -> bool:
    return await _looks(operator) >= times
