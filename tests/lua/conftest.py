"""The raw scripts over an empty Redis, and clients that race."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.store.redis import Client

from .calls import Scripts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

RACING = 16


@pytest.fixture
def scripts(redis_url: str) -> Iterator[Scripts]:
    """The scripts, over a client that decodes replies."""
    with redis.Redis.from_url(redis_url, protocol=2, decode_responses=True) as client:
        yield Scripts(client)


@pytest.fixture
async def clients(redis_url: str) -> AsyncIterator[list[Client]]:
    """
    Clients as the product has them, but for its impatience: a busy machine must not look like a Redis that is away.

    As many as race; each opens a connection when it first needs one.
    """
    opened = [
        Client.from_url(redis_url, protocol=2, legacy_responses=False, retry=Retry(NoBackoff(), 0))
        for _ in range(RACING)
    ]
    yield opened
    for client in opened:
        await client.aclose()


@pytest.fixture
def client(clients: list[Client]) -> Client:
    """One of them."""
    return clients[0]
