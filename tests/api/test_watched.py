"""What a watcher sees of a service that nobody else asks."""

from __future__ import annotations

import asyncio

import pytest

from service.app import opened
from service.errors import Unavailable
from service.settings import Settings
from service.store.migrate import migrate
from tests.conftest import Stores
from tests.servers.own_redis import own_redis

from .serving import serving, wait_until


def test_a_redis_that_is_well_again_is_seen_to_be_though_nobody_asks_it(database_url: str) -> None:
    """The watcher's own question is the probe that closes the breaker."""
    with own_redis() as server:
        server.start()
        with serving(database_url, server.url) as running:
            wait_until(running.is_mirrored)
            with server.paused():

                def is_open() -> bool:
                    running.get("/leaderboard?limit=1")
                    return bool(running.get("/health").json()["redis"]["breaker"] == "open")

                wait_until(is_open)

            wait_until(lambda: running.get("/health").json()["status"] == "ok")


async def test_a_database_without_a_schema_serves_nobody(stores: Stores, redis_url: str) -> None:
    """It answers, but no user can be read from it: then it counts as away, until it was migrated."""
    name = stores.create()
    try:
        settings = Settings(database_url=stores.url(name), redis_url=redis_url, migrate_on_start=False)
        async with opened(settings) as ladder:
            with pytest.raises(Unavailable):
                await ladder.ping_ledger()
            await asyncio.to_thread(migrate, settings.database_url)
            await ladder.ping_ledger()
    finally:
        stores.drop(name)
