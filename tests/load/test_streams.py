"""Two thousand streams on one worker, told of four changes a second: look-ups beside them are as quick as ever."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
import redis

from service.demo import fill
from tests.api.serving import Service, serving, wait_until
from tests.conftest import Stores

from .memory import rss_kib
from .streams import run

pytestmark = pytest.mark.alone

STREAMS = 2000
SECONDS = 10
TURNS = 3
KIB_EACH = 40


@pytest.fixture
def service(stores: Stores) -> Iterator[Service]:
    """A service with one worker and a board of ten thousand, without a rate limit."""
    name = stores.create(stores.template)
    with redis.Redis.from_url(stores.redis_url) as client:
        try:
            fill(stores.url(name), 10_000)
            with serving(stores.url(name), stores.redis_url, env={"LOG_LEVEL": "info"}) as running:
                wait_until(running.is_mirrored, seconds=40)
                yield running
        finally:
            client.flushdb()
            stores.drop(name)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_two_thousand_streams_harm_no_look_up(service: Service) -> None:
    """
    The slowest hundredth takes a few milliseconds longer, and no listener misses more than a change or two.

    In turns without and with streams, and the best of these counts: something else on the machine may begin or end.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < STREAMS + 500:
        pytest.skip("the system allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        before = rss_kib(service)
        turns = [
            [run(service.settings.port, streams=streams, rate=200, seconds=SECONDS) for streams in (0, STREAMS)]
            for _ in range(TURNS)
        ]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    print(turns)  # noqa: T201  the figures, with -s
    for alone, beside in turns:
        assert {200} == set(alone.reads.statuses) == set(beside.reads.statuses)
        assert STREAMS == beside.told.streams
        assert 4 * SECONDS - 4 <= beside.told.fewest <= beside.told.most <= 4 * SECONDS + 1
    assert min(beside.reads.ms(200, "p99") - alone.reads.ms(200, "p99") for alone, beside in turns) < 25
    assert rss_kib(service) - before < KIB_EACH * STREAMS
