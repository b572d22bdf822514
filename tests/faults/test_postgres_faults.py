"""Postgres is gone, hangs, or is at its cap: the mirror serves, writes are refused in time, and nothing piles up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import psycopg
import pytest

from service.app import opened
from service.errors import NotFound, OutcomeUnknown, Unavailable
from service.model import UserId
from service.ranking.ladder import Ladder
from service.ranking.writing import WRITE_SECONDS
from service.settings import Settings
from service.store.postgres import FALLBACK_CONNECTIONS
from tests.ranking.equality import assert_mirror_equals_ledger, ready
from tests.servers.proxy import Proxy, before_postgres, before_redis

from .readers import ADA, BOB, assert_seen, populate, served_by_redis, timed, until

WRITE_DEADLINE = WRITE_SECONDS + 1
"""A write is refused by then, with slack for a busy machine."""
CROWD = 300


def lose(proxy: Proxy) -> None:
    """Lose what Postgres says."""
    proxy.lose_replies = True


FAULTS: dict[str, Callable[[Proxy], None]] = {"refused": Proxy.refuse, "hung": Proxy.pause, "replies are lost": lose}


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """The way to Postgres of the service under test."""
    async with before_postgres(database_url) as made:
        yield made


@pytest.fixture
async def cut(settings: Settings, proxy: tuple[Proxy, str]) -> AsyncIterator[Ladder]:
    """A service behind the proxy, its mirror ready and three users on it."""
    async with opened(msgspec.structs.replace(settings, database_url=proxy[1])) as running:
        await ready(running)
        await populate(running)
        await until(lambda: served_by_redis(running))
        yield running
        proxy[0].heal()


async def is_stale(ladder: Ladder) -> bool:
    """Whether the mirror's answers are marked."""
    return (await ladder.user(ADA)).stale


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_mirror_serves_while_postgres_is_away(
    cut: Ladder, proxy: tuple[Proxy, str], settings: Settings, fault: str
) -> None:
    """Reads go on and are marked after two seconds; a crowd of writes is refused, all of it in time; then it passes."""
    FAULTS[fault](proxy[0])
    begun = time.monotonic()
    writes = [asyncio.create_task(cut.rate((ADA, BOB)[number % 2], 1600 + number)) for number in range(CROWD)]
    await until(lambda: is_stale(cut), seconds=10)
    for _ in range(5):
        assert "redis" == (await timed(cut.user(ADA))).source
        assert "redis" == (await timed(cut.page(limit=2)))[0].source
    outcomes = await asyncio.gather(*writes, return_exceptions=True)

    assert time.monotonic() - begun < 2 * WRITE_DEADLINE
    assert all(isinstance(outcome, (Unavailable, OutcomeUnknown)) for outcome in outcomes)
    with pytest.raises(Unavailable):
        await timed(cut.search("player", limit=5), 4)

    proxy[0].heal()
    await until(lambda: _is_back(cut))
    await until(lambda: served_by_redis(cut))
    written = await timed(cut.rate(ADA, 1700))
    await assert_seen(cut, written)
    await assert_mirror_equals_ledger(settings)


async def _is_back(ladder: Ladder) -> bool:
    try:
        await ladder.rate(ADA, 1650)
        # Each pool comes back by itself, after a pause of its own.
        await ladder.search("player", limit=1)
    except (Unavailable, OutcomeUnknown):
        return False
    return True


@pytest.fixture
async def without_redis(settings: Settings) -> AsyncIterator[Ladder]:
    """A service whose Redis is away, and three users in Postgres."""
    async with before_redis(settings.redis_url) as (to_redis, redis_url):
        to_redis.refuse()
        async with opened(msgspec.structs.replace(settings, redis_url=redis_url)) as running:
            await populate(running)
            await running.user(ADA)
            yield running


async def test_a_crowd_takes_few_connections(without_redis: Ladder, settings: Settings) -> None:
    """
    Counting is made to take for ever: the few that may wait for it are cut off, the rest are refused.

    What is not counting goes on: rows are read, Postgres answers pings.
    """
    watch = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ladder' AND datname = current_database()"
        " AND wait_event_type = 'Lock' AND query LIKE '%%rating%%'"
    )
    with (
        psycopg.connect(settings.database_url) as blocker,
        psycopg.connect(settings.database_url, autocommit=True) as watcher,
    ):
        blocker.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        reads = [
            asyncio.create_task(timed(without_redis.user(UserId(f"user-{number}")))) for number in range(CROWD)
        ] + [asyncio.create_task(timed(without_redis.page(limit=1, offset=number))) for number in range(CROWD)]
        busiest = 0
        while not all(read.done() for read in reads):
            busiest = max(busiest, watcher.execute(watch).fetchall()[0][0])
            await timed(without_redis.ping_ledger())
            await asyncio.sleep(0.01)
        outcomes = await asyncio.gather(*reads, return_exceptions=True)

    assert 0 < busiest <= FALLBACK_CONNECTIONS
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert 0 == without_redis.fallback.under_way
    await assert_seen(without_redis, await without_redis.rate(ADA, 1600))


async def test_a_crowd_is_answered_when_counting_is_cheap(without_redis: Ladder) -> None:
    """As many at once as before: they share a few statements, and nobody is refused."""
    outcomes: list[object] = []
    # A machine that stands still for the tenth of a second that they may wait has them refused.
    for _ in range(3):
        reads = [without_redis.user(user_id) for user_id in (ADA, BOB, UserId("nobody")) * (CROWD // 3)]
        outcomes = list(await asyncio.gather(*reads, return_exceptions=True))
        if not any(isinstance(outcome, Unavailable) for outcome in outcomes):
            break

    assert CROWD // 3 == sum(isinstance(outcome, NotFound) for outcome in outcomes)
    assert CROWD // 3 * 2 == sum(not isinstance(outcome, Exception) for outcome in outcomes)


async def test_a_big_board_is_ranked_from_a_histogram(without_redis: Ladder) -> None:
    """Of whoever has not changed since; and exactly of whoever has, and for those who ask for it."""
    without_redis.fallback._exact_users = 2
    written = await without_redis.rate(ADA, 1600)
    counted = await without_redis.user(ADA)
    assert written.user == counted.value.user

    await until(lambda: _from_histogram(without_redis))
    ranked = await without_redis.user(BOB)
    assert ranked.as_of is not None
    assert (2, 2) == (ranked.value.standing.rank, ranked.value.standing.position)

    await without_redis.rate(BOB, 1700)
    exact = await without_redis.user(BOB)
    assert ("postgres", 1, 1) == (exact.source, exact.value.standing.rank, exact.value.standing.position)
    with pytest.raises(NotFound):
        await without_redis.user(UserId("nobody"))


async def _from_histogram(ladder: Ladder) -> bool:
    return "histogram" == (await ladder.user(ADA)).source
