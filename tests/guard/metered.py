"""A service between two meters, for the tests that count what its requests ask of the stores."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import redis

from tests.api.serving import Service, serving, wait_until
from tests.conftest import Stores
from tests.servers.background import background
from tests.servers.proxy import before_postgres, before_redis

from .meter import Count, Meter, feeds_postgres, feeds_redis, postgres_statements, redis_commands

USERS = 1200


class Metered(NamedTuple):
    """A service between two meters."""

    service: Service
    redis: Meter
    postgres: Meter

    @contextlib.contextmanager
    def counting(self) -> Iterator[tuple[Count, Count]]:
        """What the block asks of Redis and of Postgres; filled in at its end."""
        to_redis, to_postgres = Count(), Count()
        self.redis.begin()
        self.postgres.begin()
        yield to_redis, to_postgres
        for told, found in (
            (to_redis, self.redis.counted(redis_commands, feeds_redis)),
            (to_postgres, self.postgres.counted(postgres_statements, feeds_postgres)),
        ):
            told.trips, told.asked, told.told = found.trips, found.asked, found.told


@contextlib.contextmanager
def metered(stores: Stores, redis_url: str, **env: str) -> Iterator[Metered]:
    """A service of one worker over an empty Redis; nothing but requests and the feeding asks the stores."""
    name = stores.create(stores.template)
    with contextlib.ExitStack() as stack, redis.Redis.from_url(redis_url) as client:
        stack.callback(stores.drop, name)
        stack.callback(client.flushdb)
        loop = stack.enter_context(background())
        to_redis, redis_way = stack.enter_context(loop.entered(before_redis(redis_url, Meter)))
        to_postgres, postgres_way = stack.enter_context(loop.entered(before_postgres(stores.url(name), Meter)))
        assert isinstance(to_redis, Meter)
        assert isinstance(to_postgres, Meter)
        service = stack.enter_context(serving(postgres_way, redis_way, env={"CHECK_SAMPLE": "0", **env}))
        service.execute(
            "INSERT INTO users (id, username, rating) SELECT 'id-' || n, 'player' || n, 1000 + n % 50"
            f" FROM generate_series(1, {USERS}) n"
        )
        wait_until(service.is_mirrored)
        yield Metered(service, to_redis, to_postgres)
