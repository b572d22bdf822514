"""The end of a service: announced, orderly, and soon; and what happens to workers that end by themselves."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from .serving import Service, serving, wait_until
from .wire import request

END_SECONDS = 5.0
UNFINISHED = request("POST", "/users", [("Content-Type", "application/json"), ("Content-Length", "24")])


@pytest.fixture
def announcing(database_url: str, redis_url: str) -> Iterator[Service]:
    """A service with two workers, whose end takes a second from the announcement."""
    with serving(database_url, redis_url, workers=2, env={"DRAIN_SECONDS": "1"}) as running:
        wait_until(running.is_mirrored)
        yield running


def test_the_end_is_announced_before_it_comes(announcing: Service) -> None:
    """Not ready at once, and serving all the same; then gone with exit code 0, within five seconds."""
    with httpx.Client(base_url=announcing.client.base_url, trust_env=False) as client:
        process = announcing._process
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        # Each worker is told for itself: a new connection may be another one's.
        wait_until(lambda: client.get("/health/ready").status_code == 503, seconds=1)
        wait_until(lambda: announcing.client.get("/health/ready").status_code == 503, seconds=1)
        assert 200 == client.get("/leaderboard").status_code
        assert 200 == client.get("/health/live").status_code

        assert 0 == process.wait(END_SECONDS)
        assert 1 <= time.monotonic() - begun < END_SECONDS


def test_a_request_that_has_begun_is_answered(announcing: Service) -> None:
    """Also when the rest of it comes only after the service has stopped listening."""
    with socket.create_connection(("127.0.0.1", announcing.settings.port), timeout=10) as connection:
        connection.sendall(UNFINISHED)
        wait_until(lambda: announcing.get("/health/live").status_code == 200)
        announcing._process.send_signal(signal.SIGTERM)

        def finish() -> None:
            connection.sendall(b'{"username":"finished"} ')

        timer = threading.Timer(1.5, finish)
        timer.start()
        answer = connection.recv(65536)
        timer.join()

    assert answer.startswith(b"HTTP/1.1 201 ")
    assert 0 == announcing._process.wait(END_SECONDS)


def test_the_second_signal_and_ctrl_c_end_it_at_once(announcing: Service) -> None:
    """Whoever sits in front of it does not wait for a balancer."""
    begun = time.monotonic()
    announcing._process.send_signal(signal.SIGINT)

    assert 0 == announcing._process.wait(END_SECONDS)
    assert time.monotonic() - begun < END_SECONDS


def workers(service: Service) -> list[int]:
    """The process ids of the workers."""
    pid = service._process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for the workers in /proc")
def test_a_worker_that_dies_is_replaced(announcing: Service) -> None:
    """Another takes its place, and then nobody notices any more."""
    before = workers(announcing)
    os.kill(before[0], signal.SIGKILL)

    wait_until(lambda: len(set(workers(announcing)) - set(before)) == 1)

    def serves() -> bool:
        try:
            return all(announcing.get("/leaderboard").status_code == 200 for _ in range(20))
        except httpx.TransportError:
            # Its connections, and those that the kernel had given to it.
            return False

    wait_until(serves)
