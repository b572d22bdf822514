"""Sessions beside the service, of somebody who goes past it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
import redis

from tests.ranking.reconciling import Session


@pytest.fixture
def ledger(database_url: str) -> Iterator[Session]:
    """A session of somebody who writes SQL by hand."""
    with psycopg.connect(database_url, autocommit=True) as session:
        yield session


@pytest.fixture
def board(redis_url: str) -> Iterator[redis.Redis]:
    """A session of somebody who looks at Redis, or tampers with it."""
    with redis.Redis.from_url(redis_url, protocol=2) as session:
        yield session
