"""Redis is slow, hung, cut off or gone: answers stay right and in time, and the mirror heals by itself."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from service.app import opened
from service.ranking.answers import Demand
from service.ranking.ladder import Ladder
from service.settings import Settings
from tests.ranking.equality import assert_mirror_equals_ledger, ready
from tests.servers.own_redis import own_redis
from tests.servers.proxy import Proxy, before_redis

from .readers import ADA, BOB, assert_seen, populate, served_by_redis, timed, until

QUICK_SECONDS = 0.25
"""A read while the breaker is open: no call to Redis in it, with slack for a busy machine."""


def break_replies(proxy: Proxy) -> None:
    """Lose what Redis says."""
    proxy.lose_replies = True


def break_requests(proxy: Proxy) -> None:
    """Lose what it is told."""
    proxy.lose_requests = True


def delay(proxy: Proxy) -> None:
    """Answer far too late."""
    proxy.latency = 3.0


FAULTS: dict[str, Callable[[Proxy], None]] = {
    "hung": Proxy.pause,
    "requests are lost": break_requests,
    "replies are lost": break_replies,
    "too slow": delay,
    "refused": Proxy.refuse,
}


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """The way to Redis of the service under test."""
    async with before_redis(redis_url) as made:
        yield made


@pytest.fixture
async def faulty(settings: Settings, proxy: tuple[Proxy, str]) -> AsyncIterator[Ladder]:
    """A service behind the proxy, its mirror ready and three users on it."""
    async with opened(msgspec.structs.replace(settings, redis_url=proxy[1])) as running:
        await ready(running)
        await populate(running)
        await until(lambda: served_by_redis(running))
        yield running
        proxy[0].heal()


async def test_a_slow_redis_is_waited_for(faulty: Ladder, proxy: tuple[Proxy, str]) -> None:
    """80 ms more are less than it would take to be worth giving up."""
    proxy[0].latency = 0.08
    written = await timed(faulty.rate(ADA, 1600))

    assert "applied" == written.placed.outcome
    assert {"redis"} == await assert_seen(faulty, written)
    assert "closed" == faulty.breaker


async def test_a_reset_connection_is_replaced(faulty: Ladder, proxy: tuple[Proxy, str], settings: Settings) -> None:
    """Whatever was under way is pending; the next call connects anew."""
    for rating in range(1600, 1605):
        proxy[0].reset()
        written = await timed(faulty.rate(ADA, rating))
        assert {"postgres", "redis"} >= await assert_seen(faulty, written)
    await until(lambda: served_by_redis(faulty))

    assert "closed" == faulty.breaker
    await assert_mirror_equals_ledger(settings)


@pytest.mark.parametrize("fault", FAULTS)
async def test_answers_stay_right_and_in_time(
    faulty: Ladder, proxy: tuple[Proxy, str], settings: Settings, fault: str
) -> None:
    """
    Writers read their writes, by token and without; after a few calls nobody waits for Redis any more.

    When it is well again the breaker closes, and the board is what Postgres says, row by row.
    """
    FAULTS[fault](proxy[0])
    for rating in range(1600, 1606):
        written = await timed(faulty.rate(ADA, rating))
        assert "pending" == written.placed.outcome
        assert written.placed.rank is None
        assert {"postgres"} == await assert_seen(faulty, written)
        assert {"postgres"} == await assert_seen(faulty, written, Demand(written.token))
    assert "closed" != faulty.breaker

    proxy[0].heal()
    await until(lambda: served_by_redis(faulty))
    assert {"closed"} == {faulty.breaker}
    written = await timed(faulty.rate(ADA, 1700))
    assert "applied" == written.placed.outcome
    assert {"redis"} == await assert_seen(faulty, written, Demand(written.token))
    await assert_mirror_equals_ledger(settings)


async def test_an_open_breaker_costs_nobody_time(faulty: Ladder, proxy: tuple[Proxy, str]) -> None:
    """Most reads and writes do not even try; now and then one probes."""
    proxy[0].pause()
    await until(lambda: _is_open(faulty))
    seconds = []
    for rating in range(1600, 1630):
        begun = time.monotonic()
        await faulty.rate(ADA, rating)
        await faulty.user(ADA)
        seconds.append(time.monotonic() - begun)

    assert sorted(seconds)[len(seconds) // 2] < QUICK_SECONDS


async def _is_open(ladder: Ladder) -> bool:
    await ladder.user(ADA)
    return ladder.breaker == "open"


async def test_a_put_that_arrives_late_changes_nothing(
    faulty: Ladder, proxy: tuple[Proxy, str], settings: Settings
) -> None:
    """Its writer has given up, and somebody else's newer write is on the board: the version decides."""
    async with opened(settings) as other:
        await ready(other)
        proxy[0].pause()
        late = await timed(faulty.rate(ADA, 1600))
        newer = await timed(other.rate(ADA, 1700))
        assert ("pending", "applied") == (late.placed.outcome, newer.placed.outcome)
        assert {"redis"} == await assert_seen(other, newer, Demand(newer.token))
        proxy[0].heal()
        await until(lambda: served_by_redis(faulty))

        assert {"redis"} == await assert_seen(faulty, newer, Demand(newer.token))
        assert {"redis"} == await assert_seen(other, newer, Demand(late.token))
        await assert_mirror_equals_ledger(settings)


async def test_writes_of_a_redis_that_was_stopped_come_late_and_in_order(settings: Settings) -> None:
    """A Redis that hangs has the puts in its sockets: when it goes on it carries them out, after newer ones."""
    with own_redis() as server:
        server.start()
        own = msgspec.structs.replace(settings, redis_url=server.url)
        async with opened(own) as ladder:
            await ready(ladder)
            await populate(ladder)
            await until(lambda: served_by_redis(ladder))
            with server.paused():
                writes = [await timed(ladder.rate(BOB, rating)) for rating in (1600, 1700, 1650)]
                assert ["pending"] * 3 == [written.placed.outcome for written in writes]
                assert {"postgres"} == await assert_seen(ladder, writes[-1])
            await until(lambda: served_by_redis(ladder))

            assert {"redis"} == await assert_seen(ladder, writes[-1], Demand(writes[-1].token))
            await assert_mirror_equals_ledger(own)
