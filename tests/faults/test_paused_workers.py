"""A worker is stopped in the middle of something and goes on much later, when the world has moved on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import psycopg
import pytest

from service.settings import Settings
from tests.api.serving import Service, serving, wait_until

from .clients import insert, looking_at, measured, until_equal

SILENT_SECONDS = 12.0
"""The server ends the silent session that holds the lock after 5 s, and the others ask every second; and slack."""

MEANWHILE = {
    "rated again": "UPDATE users SET rating = 1700 WHERE id = 'user1'",
    "deleted": "DELETE FROM users WHERE id = 'user1'",
    "renamed and rated": "UPDATE users SET username = 'another', rating = 1800 WHERE id = 'user1'",
    "nothing": "SELECT 1",
}


@contextlib.contextmanager
def stopped_at(service: Service, point: str) -> Iterator[None]:
    """Wait until the service's worker has stopped itself there, and let it go on at the end of the block."""
    try:
        wait_until(lambda: service.at_failpoint(point))
        yield
    finally:
        for worker in service.at_failpoint(point):
            os.kill(worker, signal.SIGCONT)


@contextlib.contextmanager
def sending(service: Service, user_id: str, rating: int) -> Iterator[Future[httpx.Response]]:
    """A write that is under way during the block."""
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(service.put, user_id, rating)


@pytest.mark.parametrize("meanwhile", MEANWHILE)
async def test_a_put_after_a_long_pause_changes_nothing_that_is_newer(settings: Settings, meanwhile: str) -> None:
    """
    Stopped between commit and put, while the tailer of another process brings that write and what comes after it.

    The put is made in the end. The user is on the board once, as they are now, or not at all if deleted.
    """
    insert(settings, 3)
    plain = serving(settings.database_url, settings.redis_url)
    with plain as other, looking_at(settings) as held:
        wait_until(other.is_mirrored)
        late = serving(settings.database_url, settings.redis_url, failpoints="after_commit=stop@1")
        with late as service, sending(service, "user1", 1600) as answer:
            before = held("user1")
            with stopped_at(service, "after_commit"):
                begun = time.monotonic()
                wait_until(lambda: held("user1") > before)
                measured(f"stopped between commit and put: in the mirror after {time.monotonic() - begun:.2f} s")
                other.execute(MEANWHILE[meanwhile])
                await until_equal(settings)
                newest = held("user1")
            told = await asyncio.to_thread(answer.result)

            assert newest == held("user1")
            await until_equal(settings)
        assert (200, 1600) == (told.status_code, told.json()["rating"])
        assert ("applied" if meanwhile == "nothing" else "superseded") == told.headers["x-mirror-write"]


async def test_a_worker_paused_over_a_write_locks_nobody_out(settings: Settings) -> None:
    """
    Stopped with a connection in its hands: it holds no row and no horizon, as a write is one statement.

    Others write the same user at once. What it does when it goes on is a write like any other, and comes last.
    """
    insert(settings, 1)
    with serving(settings.database_url, settings.redis_url) as other:
        wait_until(other.is_mirrored)
        late = serving(settings.database_url, settings.redis_url, failpoints="before_commit=stop@1")
        with late as service, sending(service, "user1", 1600) as answer:
            with stopped_at(service, "before_commit"):
                begun = time.monotonic()
                assert 200 == other.put("user1", 1700).status_code
                assert time.monotonic() - begun < 1
                assert [] == open_transactions(settings)
                await until_equal(settings)
            told = await asyncio.to_thread(answer.result)

            assert (200, 1700) == (told.status_code, told.json()["previous_rating"])
            assert 1600 == other.rows()[told.json()["id"]].rating
            await until_equal(settings)


def open_transactions(settings: Settings) -> list[tuple[object, ...]]:
    """The service's sessions that have a transaction, or are in a statement."""
    with psycopg.connect(settings.database_url) as connection:
        return connection.execute(
            "SELECT pid, state, query FROM pg_stat_activity WHERE application_name = 'ladder'"
            " AND datname = current_database() AND xact_start IS NOT NULL AND now() - xact_start > '0.3 s'"
        ).fetchall()


async def test_a_tailer_that_goes_on_after_another_took_over_does_no_harm(settings: Settings) -> None:
    """
    Stopped with changes in its hands that it has not applied. The other one feeds; then the first goes on.

    Its batch presents an old token and is refused, whatever is in it.
    """
    users = insert(settings, 50)
    first = serving(settings.database_url, settings.redis_url, failpoints="tail_after_query=stop@1")
    with first as leader:
        wait_until(leader.is_mirrored)
        with serving(settings.database_url, settings.redis_url) as other, looking_at(settings) as held:
            before = held(users[0])
            other.execute("UPDATE users SET rating = 1501")
            with stopped_at(leader, "tail_after_query"):
                begun = time.monotonic()
                wait_until(lambda: held(users[0]) > before)
                seconds = time.monotonic() - begun
                measured(f"the tailer stopped: another one has taken over after {seconds:.2f} s")
                assert seconds < SILENT_SECONDS
                other.execute("UPDATE users SET rating = 1502; DELETE FROM users WHERE id = 'user50'")
                await until_equal(settings)
            wait_until(lambda: "tail.refused" in leader.log())
            await until_equal(settings)
            assert 200 == leader.put(users[0], 1600).status_code
            await until_equal(settings)

        assert [] == [line for line in leader.logged() if line["event"] == "tail.failed"]


async def test_a_board_that_is_emptied_during_its_load_is_loaded_again(settings: Settings) -> None:
    """The loader is told so by the next batch, and begins anew; until it is through, Postgres ranks."""
    insert(settings, 6000)
    with looking_at(settings):
        stopped = "load_mid=stop@2"
        first = serving(settings.database_url, settings.redis_url, failpoints=stopped, until=is_in_load)
        with first as service:
            with stopped_at(service, "load_mid"):
                flush(settings)
            wait_until(lambda: service.get("/leaderboard?limit=1").headers.get("x-rank-source") == "redis")
            await until_equal(settings)
            begun = [line for line in service.logged() if line["event"] == "mirror.load_begun"]

            assert 2 == len(begun)
            assert [] == [line for line in service.logged() if line["event"] == "tail.failed"]


def is_in_load(service: Service) -> bool:
    """Whether the worker has stopped itself in the middle of a load, which may be before it was ever asked anything."""
    return bool(service.at_failpoint("load_mid"))


def flush(settings: Settings) -> None:
    """Empty Redis."""
    import redis

    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushall()
