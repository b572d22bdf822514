"""`scripts/reconcile.py` beside a busy service, stopped where it has read one store and not yet the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from service.order import encode
from service.settings import Settings
from tests.api.serving import Service, serving, wait_until

from .clients import USERS, Clients, insert, until_equal

PROGRAM = Path(__file__).parents[2] / "scripts" / "reconcile.py"
POINTS = (
    "reconcile_after_peek",
    pytest.param("reconcile_after_select", marks=pytest.mark.slow),
    pytest.param("reconcile_before_fix", marks=pytest.mark.slow),
)


@contextlib.contextmanager
def reconciling(settings: Settings, failpoints: str, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A run of the program, and its log; it is gone in the end."""
    log = folder / "log"
    variables = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    testing = {"LADDER_FAILPOINTS": failpoints, "LADDER_TESTING": "true"}
    with log.open("wb") as output:
        program = subprocess.Popen(
            [sys.executable, PROGRAM, "--json"],
            stdout=subprocess.PIPE,
            stderr=output,
            env={**os.environ, **variables, **testing},
        )
    try:
        yield program, log
    finally:
        if program.poll() is None:
            program.kill()
            program.communicate()


def damage(settings: Settings) -> None:
    """Every kind that looks again: users that the mirror has not got, has otherwise, and has though nobody else does."""
    with redis.Redis.from_url(settings.redis_url) as client:
        # In this order: a board with more members than users looks damaged to the tailer, which would load it anew.
        client.hset(USERS, mapping={f"nobody{number}": f"1|{encode('nobody')}" for number in range(10)})
        client.hset(USERS, mapping={f"user{number}": "1|nonsense" for number in range(11, 21)})
        client.hdel(USERS, *(f"user{number}" for number in range(1, 6)))


def change(settings: Settings) -> None:
    """Rate, delete and create by SQL: some of those that were damaged, some that nobody knew."""
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute("UPDATE users SET rating = rating + 1 WHERE id IN ('user1', 'user2', 'user11', 'user12')")
        connection.execute("DELETE FROM users WHERE id IN ('user3', 'user13')")
        connection.execute(
            "INSERT INTO users (id, username, rating) SELECT 'nobody' || n, 'new-' || n, 1600 FROM generate_series(0, 3) n"
        )
        connection.execute(
            "INSERT INTO users (id, username, rating) SELECT 'late' || n, 'late-' || n, 1600 FROM generate_series(1, 50) n"
        )


@pytest.mark.parametrize("point", POINTS)
async def test_what_is_written_during_a_long_pause_is_not_undone(
    settings: Settings, tmp_path: Path, point: str
) -> None:
    """Users are created, rated and deleted meanwhile; none disappears, none comes back, all are equal."""
    users = insert(settings, 400)
    with serving(settings.database_url, settings.redis_url) as service:
        wait_until(service.is_mirrored)
        damage(settings)
        clients = Clients(service, users[100:], clients=6)
        writing = asyncio.create_task(clients.write())
        with reconciling(settings, f"{point}=stop@1", tmp_path) as (program, log):
            await asyncio.to_thread(wait_until, lambda: point in log.read_text())
            change(settings)
            acknowledged = clients.acknowledged
            await asyncio.to_thread(wait_until, lambda: clients.acknowledged > acknowledged + 100)
            await asyncio.to_thread(wait_until, lambda: has_late(service, settings))
            program.send_signal(signal.SIGCONT)
            told, _ = await asyncio.to_thread(program.communicate)
            report = json.loads(told)
            clients.over = True
            await writing

        assert (0, 0) == (report["exit"], report["remaining"]), report
        assert report["repaired"] > 0
        await until_equal(settings)
        clients.check()


def has_late(service: Service, settings: Settings) -> bool:
    """Whether the tailer has brought what was created meanwhile."""
    assert service.is_ready()
    with redis.Redis.from_url(settings.redis_url) as client:
        return bool(client.hexists(USERS, "late50"))
