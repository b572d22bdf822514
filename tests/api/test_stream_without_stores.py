"""The stream while stores are away: pages from whichever can answer, patience when none can, and back by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.store.migrate import migrate
from tests.servers.own_postgres import OwnPostgres, own_postgres
from tests.servers.own_redis import OwnRedis, own_redis

from .listening import Stream, listening
from .serving import Service, serving, wait_until


@pytest.fixture
def postgres() -> Iterator[OwnPostgres]:
    """A Postgres of the test's own, with the schema."""
    with own_postgres() as server:
        server.start()
        migrate(server.url)
        yield server


@pytest.fixture
def redis_server() -> Iterator[OwnRedis]:
    """A Redis of the test's own, that runs."""
    with own_redis() as server:
        server.start()
        yield server


@pytest.fixture
def service(postgres: OwnPostgres, redis_server: OwnRedis) -> Iterator[Service]:
    """A service over both, with a heartbeat a second and two users."""
    with serving(postgres.url, redis_server.url, env={"STREAM_HEARTBEAT_SECONDS": "1"}) as running:
        for number in (1, 2):
            running.created(f"user{number}", id=f"u{number}", rating=1000 + number)
        wait_until(running.is_mirrored)
        yield running


def test_without_redis_it_goes_on_and_without_both_it_waits(
    service: Service, postgres: OwnPostgres, redis_server: OwnRedis
) -> None:
    """Pages from Postgres; then heartbeats alone, also for who comes now; then pages again, and right ones."""
    with listening(service) as stream:
        assert [1002, 1001] == stream.event().ratings
        redis_server.kill()
        service.put("u1", 1500)
        assert [1500, 1002] == stream.until([1500, 1002]).ratings

        postgres.kill()
        wait_until(lambda: service.get("/leaderboard").status_code == 503)
        before = len(stream.beats)
        wait_until(lambda: len(stream.beats) >= before + 2, seconds=6)
        with listening(service) as newcomer:
            wait_until(lambda: len(newcomer.beats) >= 2, seconds=6)
            assert [] == stream.events(seconds=0.1) + newcomer.events(seconds=0.1)

            postgres.start()
            assert [1500, 1002] == newcomer.event(seconds=20).ratings
        redis_server.start()
        wait_until(service.is_mirrored)
        assert_same(stream, service)
        service.put("u2", 1600)
        assert [1600, 1500] == stream.event().ratings


def assert_same(stream: Stream, service: Service) -> None:
    """Whatever came meanwhile, nothing of it was another page than the one that there is."""
    page = service.get("/leaderboard?limit=3").json()

    assert all(heard.page == page for heard in stream.events(seconds=0.3))


def test_an_emptied_redis_is_not_an_empty_board(service: Service, redis_server: OwnRedis) -> None:
    """While it is loaded anew Postgres tells; no event has another page."""
    with listening(service) as stream:
        first = stream.event()
        redis_server.flush()
        wait_until(service.is_mirrored)

        assert {first.id} >= {heard.id for heard in stream.events(seconds=0.5)}
