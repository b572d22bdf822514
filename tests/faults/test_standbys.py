"""A connection that leads to a standby is not kept: the service writes as soon as its address leads to the primary."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from service.app import opened
from service.errors import Unavailable
from service.model import NewUser, UserId
from service.ranking.ladder import Ladder
from service.settings import Settings
from service.store.feed import Feed
from service.store.migrate import migrate
from service.store.postgres import borrowed
from tests.faults.readers import ADA, until
from tests.ranking.equality import assert_mirror_equals_ledger, ready
from tests.servers.own_postgres import OwnPostgres, own_postgres
from tests.servers.proxy import before_postgres


@pytest.fixture
def pair() -> Iterator[tuple[OwnPostgres, OwnPostgres]]:
    """A primary with a schema and a user, and a standby that follows it."""
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(own_postgres())
        primary.start()
        migrate(primary.url)
        primary.ask("INSERT INTO users (id, username, rating) VALUES ('ada', 'player-ada', 1500)")
        primary.stop()
        standby = primary.copy("standby")
        stack.callback(standby.remove)
        standby.follow(primary)
        primary.start()
        standby.start()
        yield primary, standby


async def _writes(ladder: Ladder) -> bool:
    return (await ladder.rate(ADA, 1600)).user.rating == 1600


async def _leads_to_standbys(ladder: Ladder) -> list[bool]:
    """Of each pool, whether a connection that it lends leads to a standby."""
    pools = (ladder._ledger._writes, ladder._ledger._reads, ladder._ledger._fallback)
    found = []
    for pool in pools:
        async with borrowed(pool) as connection:
            found.append(connection.is_on_standby)
    return found


async def test_the_address_moves_while_its_connections_live(
    pair: tuple[OwnPostgres, OwnPostgres], redis_url: str
) -> None:
    """As behind a proxy or a name that led to the standby first: reads go on, and all pools are on the primary soon."""
    primary, standby = pair
    async with contextlib.AsyncExitStack() as stack:
        door, url = await stack.enter_async_context(before_postgres(standby.url))
        settings = Settings(database_url=url, redis_url=redis_url, workers=1)
        ladder = await stack.enter_async_context(opened(settings))
        assert "postgres" == (await ladder.user(ADA)).source
        with pytest.raises(Unavailable, match="standby"):
            await ladder.rate(ADA, 1600)
        assert [True, True, True] == await _leads_to_standbys(ladder)
        # Those that are open go on leading to the standby.
        door.upstream = primary.socket
        began = asyncio.get_running_loop().time()
        await until(lambda: _writes(ladder))
        assert asyncio.get_running_loop().time() - began < 3
        while any(await _leads_to_standbys(ladder)):
            await asyncio.sleep(0.05)
        assert asyncio.get_running_loop().time() - began < 5
        await ready(ladder)
    await assert_mirror_equals_ledger(Settings(database_url=primary.url, redis_url=redis_url))


async def test_a_standby_is_promoted_under_its_connections(
    pair: tuple[OwnPostgres, OwnPostgres], redis_url: str
) -> None:
    """They are those of a primary from then on."""
    primary, standby = pair
    async with opened(Settings(database_url=standby.url, redis_url=redis_url, workers=1)) as ladder:
        assert [True, True, True] == await _leads_to_standbys(ladder)
        primary.kill()
        standby.promote()
        await until(lambda: _writes(ladder))

        assert [False, False, False] == await _leads_to_standbys(ladder)


async def test_of_several_hosts_the_primary_is_used(pair: tuple[OwnPostgres, OwnPostgres], redis_url: str) -> None:
    """Whichever comes first, and the other one after it was promoted; for every session."""
    primary, standby = pair
    hosts = ",".join(str(server.folder).replace("/", "%2F") for server in (standby, primary))
    settings = Settings(
        database_url=f"postgresql://postgres@/postgres?host={hosts}&port=5432,5432", redis_url=redis_url, workers=1
    )
    async with opened(settings) as ladder:
        assert await _writes(ladder)
        async with Feed(settings.database_url) as feed:
            assert not feed.session.is_on_standby
        assert [] == migrate(settings.database_url)
        await until(lambda: asyncio.to_thread(standby.ask, "SELECT rating = 1600 FROM users"))
        primary.kill()
        standby.promote()
        written: list[UserId] = []

        async def creates() -> bool:
            written.append(UserId(f"u{len(written)}"))
            return (await ladder.create(NewUser(written[-1], f"name-{written[-1]}", 1500))).user.id == written[-1]

        await until(creates)
