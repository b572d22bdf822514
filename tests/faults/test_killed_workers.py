"""A worker is killed: between the two stores, after both, while it feeds, and again and again under load."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import httpx
import pytest

from service.settings import Settings
from tests.api.serving import Service, serving, wait_until

from .clients import Clients, insert, looking_at, measured, until_equal
from .readers import until

CROWD = 20_000
WRITES_BETWEEN_KILLS = 100
TAKEOVER_SECONDS = 3.0
"""Another tailer asks for the lock every second; the rest is slack for a busy machine."""


def is_whole(service: Service) -> bool:
    """Whether the worker that was killed has a successor that answers."""
    return len(service.workers()) == service.settings.workers and service.is_ready()


def deaths(service: Service) -> list[tuple[object, object]]:
    """Who died, and of what, by the service's log."""
    return [(line["pid"], line["exit_code"]) for line in service.logged() if line["event"] == "worker.died"]


@pytest.mark.parametrize("point", ["before_commit", "after_commit", "after_put"])
async def test_a_write_cut_off_by_a_kill_is_in_both_stores_or_in_neither(settings: Settings, point: str) -> None:
    """
    Its client gets no answer. Killed before the commit it never was; killed after it, it is on the board.

    If the put was not made, it is brought by the tailer of another process, which first has to take over.
    """
    (user_id,) = insert(settings, 1)
    first = serving(settings.database_url, settings.redis_url, failpoints=f"{point}=kill@1")
    with first as service, serving(settings.database_url, settings.redis_url) as other, looking_at(settings) as held:
        wait_until(service.is_mirrored)
        wait_until(other.is_mirrored)
        before = held(user_id)
        with pytest.raises(httpx.TransportError):
            service.put(user_id, 1600)
        begun = time.monotonic()
        if point == "before_commit":
            assert 1500 == other.get(f"/users/{user_id}").json()["rating"]
            assert before == held(user_id)
        elif point == "after_put":
            assert held(user_id) > before
        else:
            wait_until(lambda: held(user_id) > before)
            seconds = time.monotonic() - begun
            measured(f"killed between commit and put: in the mirror after {seconds:.2f} s")
            assert seconds < TAKEOVER_SECONDS
        await until_equal(settings)
        wait_until(lambda: is_whole(service))
        measured(f"killed at {point}: answers again after {time.monotonic() - begun:.2f} s")

        assert 1 == len(service.at_failpoint(point))
        assert 200 == service.put(user_id, 1700).status_code
        await until_equal(settings)


async def test_another_process_feeds_soon_after_the_one_that_fed_was_killed(settings: Settings) -> None:
    """What is written by hand from then on is on the board as soon as the lock has passed on."""
    users = insert(settings, 50)
    with (
        serving(settings.database_url, settings.redis_url) as leader,
        serving(settings.database_url, settings.redis_url) as other,
        looking_at(settings) as held,
    ):
        wait_until(other.is_mirrored)
        before = held(users[0])
        (worker,) = leader.workers()
        os.kill(worker, signal.SIGKILL)
        begun = time.monotonic()
        wait_until(lambda: deaths(leader))
        assert [(worker, -signal.SIGKILL)] == deaths(leader)
        leader.execute("UPDATE users SET rating = rating + 1")
        wait_until(lambda: held(users[0]) > before)
        seconds = time.monotonic() - begun
        measured(f"the tailer killed: another one has taken over after {seconds:.2f} s")

        assert seconds < TAKEOVER_SECONDS
        assert "redis" == other.get("/leaderboard?limit=1").headers["x-rank-source"]
        await until_equal(settings)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kills", [3, pytest.param(25, marks=pytest.mark.slow)])
async def test_no_acknowledged_write_is_lost_when_workers_are_killed_under_load(settings: Settings, kills: int) -> None:
    """Two workers, many writers, one kill after the other: afterwards every row is what SQL says."""
    users = insert(settings, CROWD)
    with serving(settings.database_url, settings.redis_url, workers=2) as service:
        wait_until(service.is_mirrored)
        clients = Clients(service, users, clients=12)
        writing = asyncio.create_task(clients.write())
        killed: set[int] = set()
        for _ in range(kills):
            # The one that has lived longest: a worker that is killed twice in a row is taken for hopeless.
            await until(lambda: two_are_at_work(service, clients))
            killed.add(oldest := service.workers()[0])
            os.kill(oldest, signal.SIGKILL)
            clients.lately = 0
        await until(lambda: two_are_at_work(service, clients))
        clients.over = True
        await writing
        seconds = await until_equal(settings)
        measured(
            f"{kills} kills: {clients.acknowledged} writes acknowledged, {clients.unknown} unknown,"
            f" {clients.refused} refused, {clients.turned_away} not connected; {CROWD} rows equal {seconds:.2f} s after the last"
        )

        clients.check()
        assert kills == len(killed)
        assert clients.acknowledged > kills * WRITES_BETWEEN_KILLS
        assert [] == service.defects()


async def two_are_at_work(service: Service, clients: Clients) -> bool:
    """Whether the worker that was killed is replaced, and some more writes were acknowledged."""
    return clients.lately >= WRITES_BETWEEN_KILLS and len(service.workers()) == 2
