"""One service per module, over a database of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Stores

from .pictures import Pictures, pictures_of
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


@pytest.fixture(scope="module")
def pictures(service: Service) -> Iterator[Pictures]:
    """Of the user that every hostile request tries to change; in the end, no request was a defect of ours."""
    service.created("Hostile", id="hostile", rating=1500)
    service.created("Bystander", id="bystander", rating=1600)
    with pictures_of(service.settings) as made:
        yield made

    assert [] == service.defects()


@pytest.fixture
def nothing_is_written(service: Service, pictures: Pictures) -> Iterator[None]:
    """The whole users table, with its hidden columns, and the whole board are the same before and after."""
    yield
    before, after = pictures.next()
    if before != after:
        # So that the test to blame is the only one that fails.
        service.put("hostile", 1500)
        pictures.next()

    assert before == after
