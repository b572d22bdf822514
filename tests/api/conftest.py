"""One service per module, over a database of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Stores

from .serving import Service, serving, wait_until


@pytest.fixture(scope="module")
def fresh_database(stores: Stores) -> Iterator[str]:
    """A database with the schema and no users, for the tests of a module."""
    name = stores.create(stores.template)
    yield stores.url(name)
    stores.drop(name)


@pytest.fixture(scope="module")
def service(stores: Stores, fresh_database: str) -> Iterator[Service]:
    """A service that is ready and ranks by its mirror. Per module, because a Redis holds one board."""
    with stores.empty_redis(), serving(fresh_database, stores.redis_url) as running:
        wait_until(running.is_mirrored)
        yield running
