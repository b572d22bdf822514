"""
Crowds: ten thousand connections that do nothing, and twice as much as the service can do.

Others are answered in time meanwhile; what is taken on is answered in time, and the rest is refused at once.
"""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import msgspec
import pytest
import redis

from service.demo import fill
from tests.api.serving import ROOT, Service, serving, wait_until
from tests.api.wire import request
from tests.conftest import Stores

from .memory import files, rss_kib
from .overload import Outcome

pytestmark = pytest.mark.alone

IDLE_SECONDS = 5
MANY = 10_000
IN_TIME = 3.0
"""Seconds that anybody else may wait for an answer at most, on a busy machine."""
KIB_EACH = 24
"""What a connection may cost: one that has never said anything some 3 KiB, one that was served some 14."""

KINDS = {
    "never said anything": b"",
    "were served once": request("GET", "/health/live", last=False),
    "stopped in the head": b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-",
}
TIMES = 2
WORKERS = 2


@pytest.fixture(scope="module")
def service(stores: Stores) -> Iterator[Service]:
    """A service with two workers and a board of ten thousand, that nobody's rate is limited at. It closes idle connections soon."""
    name = stores.create(stores.template)
    with redis.Redis.from_url(stores.redis_url) as client:
        try:
            fill(stores.url(name), 10_000)
            env = {"LOG_LEVEL": "info", "IDLE_SECONDS": str(IDLE_SECONDS)}
            with serving(stores.url(name), stores.redis_url, workers=WORKERS, env=env) as running:
                wait_until(running.is_mirrored, seconds=40)
                yield running
        finally:
            client.flushdb()
            stores.drop(name)


@pytest.fixture
def room() -> Iterator[int]:
    """How many connections this process may open, as many as are wanted if the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY + 500
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    yield max(soft, allowed) - 500 if allowed < wanted else MANY
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "sent", [pytest.param(sent, id=kind, marks=pytest.mark.slow if sent else ()) for kind, sent in KINDS.items()]
)
def test_ten_thousand_idle_connections_keep_nobody_out(service: Service, room: int, sent: bytes) -> None:
    """Nor cost more than a few KiB each; after `IDLE_SECONDS` they are closed, and all of their files are free."""
    before, files_before = rss_kib(service), files(service)
    with contextlib.ExitStack() as held:
        begun = time.monotonic()
        connections = [
            held.enter_context(socket.create_connection(("127.0.0.1", service.settings.port))) for _ in range(room)
        ]
        say(connections, sent)
        answers = [asked(service) for _ in range(10)]

        assert max(answers) < IN_TIME
        assert rss_kib(service) - before < KIB_EACH * room
        closed_by(connections, begun + IDLE_SECONDS + 20)

    wait_until(lambda: files(service) < files_before + 100)
    assert asked(service) < IN_TIME


def say(connections: list[socket.socket], sent: bytes) -> None:
    """Send it on each, and wait for the answers if there are any: ten thousand requests at once are no idleness."""
    for start in range(0, len(connections), 200):
        some = connections[start : start + 200]
        for connection in some:
            connection.sendall(sent)
        for connection in some if sent.endswith(b"\r\n\r\n") else ():
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def asked(service: Service) -> float:
    """Seconds that a client waits for an answer, with a connection of its own."""
    begun = time.monotonic()
    found = httpx.get(f"http://127.0.0.1:{service.settings.port}/leaderboard?limit=5", timeout=30, trust_env=False)
    assert 200 == found.status_code
    return time.monotonic() - begun


def closed_by(connections: list[socket.socket], deadline: float) -> None:
    """Wait until the other side has closed all of them; fail when it has not in time."""
    poll = select.poll()
    by_number = {connection.fileno(): connection for connection in connections}
    for number in by_number:
        poll.register(number, select.POLLIN)
    while by_number:
        assert time.monotonic() < deadline, f"{len(by_number)} connections are still open"
        for number, _ in poll.poll(1000):
            with contextlib.suppress(ConnectionError):
                if by_number[number].recv(65536):
                    continue
            poll.unregister(number)
            del by_number[number]


# Overload


def overloaded(service: Service, seconds: int) -> tuple[Outcome, list[int]]:
    """What became of the load, which runs in a process of its own, and the workers' memory second by second."""
    memory: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1):
            memory.append(rss_kib(service))

    watcher = threading.Thread(target=watch)
    watcher.start()
    command = [sys.executable, "-m", "tests.load.overload", f"http://127.0.0.1:{service.settings.port}"]
    options = ["--seconds", str(seconds), "--times", str(TIMES), "--processes", *map(str, service.workers())]
    try:
        done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, check=True, timeout=seconds + 60)
    finally:
        over.set()
        watcher.join()
    return msgspec.json.decode(done.stdout, type=Outcome), memory


def assert_well(service: Service, outcome: Outcome) -> None:
    """
    Nothing but 200 and 503, both in time; most of what it can do was done; and all is as before.

    What it can do depends on what else the machine does, which may be more during the overload than before. So the
    answers are counted per second that the workers ran on a processor, and that they did not idle is known from that
    and from how long they waited for one.
    """
    usual, report = outcome.usual, outcome.overload

    assert {200, 503} == set(report.statuses)
    assert 0 == report.broken
    assert [] == service.defects()
    assert report.statuses[200] / report.processor.running > usual.statuses[200] / usual.processor.running / 4
    assert report.processor.running + report.processor.waiting > WORKERS * report.seconds / 2
    assert report.ms(200, "p99") < 3000
    assert report.ms(503, "p50") < 500
    assert outcome.recovered < 10
    wait_until(service.is_mirrored)


def test_twice_the_load_for_ten_seconds(service: Service) -> None:
    outcome, _ = overloaded(service, 10)

    print(outcome)  # noqa: T201  the figures, with -s
    assert_well(service, outcome)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_twice_the_load_for_five_minutes(service: Service) -> None:
    """Memory is in the second half what it was in the first."""
    outcome, memory = overloaded(service, 300)

    print(outcome, memory[::30])  # noqa: T201  the figures, with -s
    assert_well(service, outcome)
    half = len(memory) // 2
    assert max(memory[half:]) - max(memory[30:half]) < 64 * 1024
