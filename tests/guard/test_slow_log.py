"""The suite's look at the slow log tells what is slow, and not what was merely interrupted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.servers.own_redis import own_redis
from tests.slow_log import SlowLog, watched

pytestmark = pytest.mark.alone

MANY = 200_000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server with a hash that takes long to read, and a set that takes long to copy."""
    with own_redis() as server:
        server.start()
        with redis.Redis.from_url(server.url) as client:
            client.hset("hash", mapping={str(number): number for number in range(MANY)})
            client.sadd("set", *range(MANY))
        yield server.url


@pytest.fixture
def product(url: str) -> Iterator[redis.Redis]:
    """A client named as the product's are."""
    with redis.Redis.from_url(url, client_name="ladder") as client:
        yield client


@pytest.fixture
def log(url: str) -> Iterator[SlowLog]:
    """The log of that server."""
    with redis.Redis.from_url(url) as client, watched(client) as found:
        found.slow()
        yield found


def test_a_slow_read_is_told(product: redis.Redis, log: SlowLog) -> None:
    """Once: at the next look it is over."""
    product.hgetall("hash")

    assert ["hgetall"] == [told.partition(":")[0] for told in log.slow()]
    assert [] == log.slow()


def test_a_read_that_is_quick_when_asked_again_was_interrupted(product: redis.Redis, log: SlowLog) -> None:
    product.copy("hash", "other")
    log.slow()
    product.hgetall("other")
    product.delete("other")

    assert [] == log.slow()


def test_what_tests_ask_for_themselves_is_not_the_products(url: str, log: SlowLog) -> None:
    with redis.Redis.from_url(url) as client:
        client.hgetall("hash")

    assert [] == log.slow()


@pytest.mark.parametrize(("quick", "told"), [(0, 1), (2, 1), (3, 0)])
def test_writes_are_slow_if_most_of_them_are(product: redis.Redis, log: SlowLog, quick: int, told: int) -> None:
    """They cannot be asked again."""
    for _ in range(3):
        product.sunionstore("copy", ["set"])
    for _ in range(quick):
        # Not over the copy: to free that takes long, too.
        product.sunionstore("none", ["nothing"])

    assert told == len(log.slow())
