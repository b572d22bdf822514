"""A test copy of production is started with production's REDIS_URL: the board stays production's, and every answer is right."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from structlog.testing import capture_logs

from service.api.health import examine
from service.app import opened
from service.errors import LadderError
from service.model import UserId
from service.ranking import vacancy
from service.ranking.ladder import Ladder
from service.ranking.tail import Contested, Tailer
from service.settings import Settings
from service.store import redis as redis_store
from service.store.migrate import migrate
from service.store.mirror import Mirror
from tests.ranking.equality import assert_mirror_equals_ledger, ready
from tests.ranking.reconciling import insert
from tests.servers.own_postgres import OwnPostgres, own_postgres

from .readers import ADA, assert_seen, populate, served_by_redis, until

TAKEOVER_SECONDS = 4
"""A board that nothing feeds is taken within this time: a look a second and a half later, a load, and slack."""


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[OwnPostgres, OwnPostgres]]:
    """Production, and a copy of it that was promoted; both run."""
    with own_postgres() as production:
        production.start()
        migrate(production.url)
        with psycopg.connect(production.url, autocommit=True) as session:
            insert(session, 200)
        production.stop()
        copy = production.copy("copy")
        production.start()
        copy.recover()
        copy.start()
        try:
            yield production, copy
        finally:
            copy.remove()


@contextlib.asynccontextmanager
async def running(server: OwnPostgres, redis_url: str, takeover: str = "auto") -> AsyncIterator[Ladder]:
    """A service over one of them."""
    async with opened(_settings(server, redis_url, takeover)) as ladder:
        yield ladder


def _settings(server: OwnPostgres, redis_url: str, takeover: str = "auto") -> Settings:
    return Settings(database_url=server.url, redis_url=redis_url, workers=1, board_takeover=takeover)  # type: ignore[arg-type]


async def _is_contested(ladder: Ladder) -> bool:
    return "feeds the board" in str((await examine(ladder)).mirror.reason)


@pytest.fixture
async def production(servers: tuple[OwnPostgres, OwnPostgres], redis_url: str) -> AsyncIterator[Ladder]:
    """The service over production, its board ready."""
    async with running(servers[0], redis_url) as ladder:
        await ready(ladder)
        with contextlib.suppress(LadderError):
            await populate(ladder)
        await until(lambda: served_by_redis(ladder))
        yield ladder


async def test_a_copy_leaves_the_board_to_production(
    production: Ladder, servers: tuple[OwnPostgres, OwnPostgres], redis_url: str
) -> None:
    """It says so as an error, with both histories, and answers from its own Postgres; production notices nothing."""
    state = await production.mirror_state()
    assert state
    with capture_logs() as logs:
        async with running(servers[1], redis_url) as copy:
            for number in range(20):
                written = await production.rate(ADA, 2000 + number)
                assert "applied" == written.placed.outcome
                assert {"redis"} == await assert_seen(production, written)
                await asyncio.sleep(vacancy.QUIET_SECONDS / 10)
            await until(lambda: _is_contested(copy))
            written = await copy.rate(UserId("user200"), 4000)
            assert "pending" == written.placed.outcome
            assert {"postgres"} == await assert_seen(copy, written)
            assert "degraded" == (await examine(copy)).status
    after = await production.mirror_state()
    assert after
    assert (state.epoch, state.source) == (after.epoch, after.source)
    await assert_mirror_equals_ledger(_settings(servers[0], redis_url))

    (said,) = [entry for entry in logs if entry["event"] == "mirror.withheld"]
    assert "error" == said["log_level"]
    assert state.source in said["reason"]


async def test_a_copy_leaves_it_while_production_restarts_and_after_a_flush(
    servers: tuple[OwnPostgres, OwnPostgres], redis_url: str
) -> None:
    """It has seen that another feeds the board: that nothing does for a moment is no reason to take it."""
    async with running(servers[1], redis_url) as copy:
        async with running(servers[0], redis_url) as first:
            # Whichever came first has begun the board of an empty Redis: the copy is told that it is not its own.
            await _taken_by(servers[0], redis_url)
            await until(lambda: served_by_redis(first))
            await until(lambda: _is_contested(copy))
        await asyncio.sleep(2 * vacancy.QUIET_SECONDS)
        assert await _is_contested(copy)
        async with running(servers[0], redis_url) as again:
            await until(lambda: served_by_redis(again))
            client = redis_store.connect_feed(redis_url)
            await client.flushdb()
            await client.aclose()
            await until(lambda: served_by_redis(again))
            assert await _is_contested(copy)
    await assert_mirror_equals_ledger(_settings(servers[0], redis_url))


async def _taken_by(server: OwnPostgres, redis_url: str) -> None:
    client = redis_store.connect_feed(redis_url)
    try:
        await Tailer(server.url, Mirror(client)).catch_up(force=True)
    finally:
        await client.aclose()


async def test_a_script_takes_a_board_that_is_fed_by_force_alone(
    production: Ladder, servers: tuple[OwnPostgres, OwnPostgres], redis_url: str
) -> None:
    """Cron on the copy's host must not do what the service there does not."""
    client = redis_store.connect_feed(redis_url)
    try:
        with pytest.raises(Contested):
            await Tailer(servers[1].url, Mirror(client)).catch_up()
        await until(lambda: served_by_redis(production))
        await Tailer(servers[1].url, Mirror(client)).catch_up(force=True)
    finally:
        await client.aclose()

    await assert_mirror_equals_ledger(_settings(servers[1], redis_url))
    assert not await served_by_redis(production)


async def test_a_board_that_nothing_feeds_is_taken_after_one_more_look(
    servers: tuple[OwnPostgres, OwnPostgres], redis_url: str
) -> None:
    """As after a failover, by a process that has never fed it."""
    async with running(servers[0], redis_url) as before:
        await ready(before)
        await until(lambda: served_by_redis(before))
    async with running(servers[1], redis_url) as after:
        begun = time.monotonic()
        await until(lambda: served_by_redis(after))
        assert vacancy.QUIET_SECONDS - 1 < time.monotonic() - begun < TAKEOVER_SECONDS
    await assert_mirror_equals_ledger(_settings(servers[1], redis_url))


async def test_with_confirm_no_board_is_taken_without_an_operator(
    servers: tuple[OwnPostgres, OwnPostgres], redis_url: str
) -> None:
    """For a copy that starts while production is down."""
    async with running(servers[0], redis_url) as before:
        await ready(before)
    async with running(servers[1], redis_url, "confirm") as copy:
        await until(lambda: _needs_confirmation(copy))
        await asyncio.sleep(2 * vacancy.QUIET_SECONDS)
        written = await copy.rate(UserId("user199"), 4001)
        assert {"postgres"} == await assert_seen(copy, written)
        await assert_mirror_equals_ledger(_settings(servers[0], redis_url))
        await _taken_by(servers[1], redis_url)
        await until(lambda: served_by_redis(copy))


async def _needs_confirmation(ladder: Ladder) -> bool:
    return "BOARD_TAKEOVER" in str((await examine(ladder)).mirror.reason)
