"""/metrics with several workers: every scrape tells of all of them, and the death of one takes nothing back."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
import redis
from prometheus_client.multiprocess import MultiProcessCollector

from tests.conftest import Stores

from .scrapes import Scrape
from .serving import Service, serving, wait_until

WORKERS = 2
CLIENTS, EACH = 8, 30
REQUESTS = "ladder_http_requests_total"
TARGETS = {
    "/users/known": ("/users/{user_id}", "200"),
    "/users/nobody": ("/users/{user_id}", "404"),
    "/leaderboard?limit=1": ("/leaderboard", "200"),
    "/leaderboard?limit=0": ("/leaderboard", "400"),
}


class Crowd:
    """A service of several workers, and the directory that they share."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        (self.folder,) = folder.glob("ladder-metrics-*")
        self.sent: Counter[str] = Counter()

    def get(self, target: str) -> httpx.Response:
        """An answer over a connection of its own, so of any worker."""
        return httpx.get(f"http://127.0.0.1:{self.service.settings.port}{target}", timeout=6, trust_env=False)

    def scrape(self) -> Scrape:
        """What any worker says."""
        return Scrape(self.get("/metrics").text)

    def workers(self) -> dict[str, int]:
        """Process ids by number."""
        return {path.stem: int(path.read_text() or 0) for path in self.folder.glob("*.slot")}

    def answered(self, number: str, route: str) -> float:
        """How many requests one worker has answered."""
        merged = MultiProcessCollector.merge([str(self.folder / f"counter_{number}.db")])
        return sum(
            float(sample.value)
            for metric in merged
            for sample in metric.samples
            if sample.name == REQUESTS and sample.labels["route"] == route
        )

    def send(self, seed: int) -> None:
        """Requests of several kinds, one after the other, all answered as they should be."""
        dice = random.Random(seed)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{self.service.settings.port}", timeout=6, trust_env=False
        ) as client:
            for _ in range(EACH):
                target = dice.choice(list(TARGETS))
                assert TARGETS[target][1] == str(client.get(target).status_code)
                self.sent[target] += 1

    def send_from_many(self) -> None:
        """The same from several clients at once."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(self.send, range(CLIENTS)))

    def assert_exact(self, found: Scrape) -> None:
        """What the scrape tells is what was sent, whoever answered."""
        for target, (route, status) in TARGETS.items():
            assert self.sent[target] == found.total(REQUESTS, route=route, status=status, method="GET"), target


@pytest.fixture(scope="module")
def crowd(stores: Stores, fresh_database: str) -> Iterator[Crowd]:
    """Two workers, with a user."""
    with TemporaryDirectory(prefix="ladder-crowd-") as folder, redis.Redis.from_url(stores.redis_url) as client:
        try:
            with serving(fresh_database, stores.redis_url, workers=WORKERS, env={"TMPDIR": folder}) as service:
                service.created("known", id="known")
                crowd = Crowd(service, Path(folder))
                wait_until(lambda: len(crowd.workers()) == WORKERS)
                wait_until(service.is_mirrored)
                crowd.sent["/leaderboard?limit=1"] = int(
                    crowd.scrape().total(REQUESTS, route="/leaderboard", status="200", method="GET")
                )
                yield crowd
            assert [] == list(Path(folder).iterdir()), "the directory of the workers is left behind"
        finally:
            client.flushdb()


def test_every_scrape_tells_of_all_workers(crowd: Crowd) -> None:
    """Under load no number falls from one scrape to the next; then each is exactly what was sent, at once."""
    scrapes, done = [crowd.scrape()], threading.Event()

    def watch() -> None:
        while not done.is_set():
            scrapes.append(crowd.scrape())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        crowd.send_from_many()
    finally:
        done.set()
        watcher.join()

    for before, after in pairwise(scrapes):
        _assert_no_fall(before, after)
    asked = 0
    while asked < 10 or not all(crowd.answered(number, "/metrics") for number in crowd.workers()):
        crowd.assert_exact(crowd.scrape())
        asked += 1
        assert asked < 2000, "one worker never answers"
    assert all(crowd.answered(number, "/users/{user_id}") for number in crowd.workers())


def _assert_no_fall(before: Scrape, after: Scrape) -> None:
    later = after.counts()
    fallen = {key: (value, later.get(key)) for key, value in before.counts().items() if later.get(key, -1) < value}
    assert {} == fallen


def test_a_killed_worker_takes_nothing_back(crowd: Crowd) -> None:
    """Its successor counts on; a request that it was in the middle of is over, and it leads no more."""
    crowd.send_from_many()
    wait_until(lambda: crowd.scrape().value("ladder_tail_leading") == 1)
    before, victims = crowd.scrape(), crowd.workers()
    assert {"0", "1"} == set(victims)
    with contextlib.ExitStack() as stack:
        for _ in range(2 * WORKERS):
            # Both workers have some of these, which never send the body that they announce.
            hanging = socket.create_connection(("127.0.0.1", crowd.service.settings.port))
            stack.callback(hanging.close)
            hanging.sendall(
                b"POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            )
        wait_until(lambda: crowd.scrape().value("ladder_http_requests_in_flight") == 1 + 2 * WORKERS)
        for pid in victims.values():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: set(crowd.workers().values()).isdisjoint(victims.values()) and _answers(crowd))

    after = crowd.scrape()
    _assert_no_fall(before, after)
    assert {"0", "1"} == set(crowd.workers()), "a successor takes the number of the dead"
    wait_until(lambda: crowd.scrape().value("ladder_http_requests_in_flight") == 1)
    wait_until(lambda: crowd.scrape().value("ladder_tail_leading") == 1)
    crowd.send_from_many()
    crowd.assert_exact(crowd.scrape())
    if sys.platform == "linux":
        assert set(crowd.workers()) == {
            sample.labels["worker"]
            for family in crowd.scrape().families
            for sample in family.samples
            if sample.name == "process_open_fds"
        }


def _answers(crowd: Crowd) -> bool:
    try:
        return len(crowd.workers()) == WORKERS and crowd.get("/health/live").status_code == 200
    except httpx.TransportError:
        return False
