"""What a service logs that starts while its stores are away: each once, and that it is ready only when it is."""

from __future__ import annotations

import time

import httpx
import psycopg

from tests.api.serving import Service, free_port, serving, wait_until

RECONNECT_SECONDS = 5
"""After which a pool of psycopg gives up and complains once more."""


def test_each_store_that_is_away_is_told_of_once() -> None:
    """By two workers with three pools each, which are asked all the while whether they are ready."""
    stores = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    answers = []
    with serving(
        f"postgresql://u@{stores[0]}/x", f"redis://{stores[1]}", workers=2, env={"LOG_LEVEL": "info"}, until=is_up
    ) as running:
        end = time.monotonic() + RECONNECT_SECONDS + 1
        while time.monotonic() < end:
            answers += [running.get(path).status_code for path in ("/health/ready", "/health")]
        told = running.logged()

    reasons = [str(line["reason"]) for line in told if "reason" in line]
    assert {503} == set(answers)
    assert 2 == len(reasons), reasons
    assert all(any(store.rpartition(":")[2] in reason for reason in reasons) for store in stores)
    # The one that is left says that requests leave Redis alone, once for both workers.
    assert len(told) <= 3, told


def is_up(service: Service) -> bool:
    """Whether it listens."""
    try:
        return service.get("/health/live").status_code == 200
    except httpx.TransportError:
        return False


def test_without_a_schema_it_is_not_ready(database_url: str, redis_url: str) -> None:
    """Postgres answers, but nothing can be served."""
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("DROP TABLE users CASCADE")
    with serving(database_url, redis_url, env={"MIGRATE_ON_START": "false"}, until=is_up) as running:
        wait_until(lambda: any("migrate.py makes" in str(line.get("reason")) for line in running.logged()))
        assert 503 == running.get("/health/ready").status_code
