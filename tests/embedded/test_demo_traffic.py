"""The matches that make a first look move: what a match does, and that they end with the server and never end it."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import demo_traffic
from service.demo_traffic import Api, GaveUp, exchanged, play
from service.model import MAX_RATING, MIN_RATING
from service.settings import Settings
from tests.api.serving import free_port
from tests.embedded.processes import ROOT, is_alive, wait_until

RATINGS = st.integers(MIN_RATING, MAX_RATING)


@given(first=RATINGS, second=RATINGS, score=st.sampled_from([0.0, 0.5, 1.0]))
def test_a_match_moves_points_and_makes_none(first: int, second: int, score: float) -> None:
    """What one gains the other loses, nobody leaves the limits, and the result counts for more if it surprises."""
    gain = exchanged(first, second, score)

    assert MIN_RATING <= first + gain <= MAX_RATING
    assert MIN_RATING <= second - gain <= MAX_RATING
    assert abs(gain) <= demo_traffic.K_FACTOR
    assert gain == -exchanged(second, first, 1 - score)
    assert exchanged(1500, 1500, 1) == 12 < exchanged(1400, 1600, 1)


class Scripted(Api):
    """A service that answers what it is told to, and notes what it was asked."""

    def __init__(self, *answers: tuple[int, object]) -> None:
        super().__init__("nowhere", 1)
        self.answers = list(answers)
        self.asked: list[tuple[str, str, object]] = []

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, object]:
        """The next answer."""
        self.asked.append((method, path, body))
        return self.answers.pop(0)


class FirstWins(random.Random):
    """Nobody draws, and the first wins."""

    def random(self) -> float:
        """Neither small nor large."""
        return 0.4


ROWS = [{"id": "a", "rating": 1500}, {"id": "b:1", "rating": 1500}]
FOUND = [(200, {"items": ROWS[:1], "total": 2}), (200, {"items": ROWS})]


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        ([(200, {"items": [], "total": 0})], 1),
        ([(503, None)], 1),
        ([FOUND[0], (404, None)], 2),
        ([FOUND[0], (200, {"items": ROWS[:1]})], 2),
        ([*FOUND, (409, None)], 3),
        ([*FOUND, (200, {}), (200, {})], 4),
    ],
    ids=["nobody", "busy", "deleted meanwhile", "alone", "refused", "played"],
)
def test_a_match_is_played_as_far_as_it_goes(answers: list[tuple[int, object]], asked: int) -> None:
    """Whoever is not there, or may not be rated so, is left alone; the second is rated only if the first was."""
    api = Scripted(*answers)
    play(api, FirstWins(), 2)

    assert not api.answers
    assert asked == len(api.asked)
    assert [("a", 12), ("b%3A1", -12)][: max(asked - 2, 0)] == [
        (path.split("/")[2], body["delta"]) for method, path, body in api.asked if method == "PATCH" and isinstance(body, dict)
    ]  # fmt: skip


@contextlib.contextmanager
def answering(*statuses: int) -> Iterator[int]:
    """A server that gives each status once, the last one for ever; its port."""
    left = list(statuses)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(left.pop(0) if len(left) > 1 else left[0])
            self.send_header("Retry-After", "7")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            serving.join()


def test_it_waits_as_long_as_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """429 and 503 are heeded with their Retry-After; a service that never answers is given up, as is one with keys."""
    pauses: list[float] = []
    with answering(429, 503, 200) as port:
        api = Api("127.0.0.1", port, sleep=pauses.append)
        assert [429, 503, 200] == [api.ask("GET", "/")[0] for _ in range(3)]
    assert [7, 7] == pauses

    with answering(401) as port, pytest.raises(GaveUp, match="LADDER_DEMO_KEY"):
        Api("127.0.0.1", port).ask("GET", "/")

    monkeypatch.setattr(demo_traffic, "_PATIENCE_SECONDS", 0)
    api = Api("127.0.0.1", free_port(), sleep=pauses.append)
    with pytest.raises(GaveUp, match="has not answered"):
        [api.ask("GET", "/") for _ in range(10)]


@contextlib.contextmanager
def launched(settings: Settings, **variables: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The launcher over a test's stores, playing; the process, and the one that plays."""
    port = str(free_port())
    command = [sys.executable, "-P", "-m", "service.launch", "--port", port, "--workers", "1"]
    stores = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "PYTHONPATH": str(ROOT),
        "LOG_LEVEL": "error",
    }
    with subprocess.Popen(
        [*command, "--demo-users", "60", "--demo-traffic", "50"], env={**os.environ, **stores, **variables},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as launcher:  # fmt: skip
        try:
            assert launcher.stdout is not None
            assert launcher.stderr is not None
            assert "Ladder is ready" in launcher.stdout.readline()
            assert launcher.stderr.readline().startswith("Making up users")
            playing: list[int] = []
            if not variables:
                wait_until(lambda: _players(port))
                playing = _players(port)
            yield launcher, playing[0] if playing else 0
        finally:
            launcher.kill()


def _players(port: str) -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_bytes().split(b"\0")
            if b"service.demo_traffic" in words and port.encode() in words and b"-m" in words[:4]:
                found.append(int(file.parent.name))
    return found


def _played(settings: Settings) -> int:
    """How many users have another rating than they were made up with; nobody has lost what nobody has gained."""
    with psycopg.connect(settings.database_url) as connection:
        query = "SELECT count(*) FROM users WHERE updated_at <> created_at"
        return int((connection.execute(query).fetchone() or (0,))[0])


pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")


def test_users_play_until_the_server_ends(settings: Settings) -> None:
    """The board moves; SIGTERM ends both, exit code 0, and nothing was said."""
    with launched(settings) as (launcher, player):
        wait_until(lambda: _played(settings) > 10)
        launcher.send_signal(signal.SIGTERM)

        assert ("", "") == launcher.communicate()
        assert 0 == launcher.returncode
        assert not is_alive(player)
    with psycopg.connect(settings.database_url) as connection:
        low, high = connection.execute("SELECT min(rating), max(rating) FROM users").fetchone() or (0, 0)
        assert MIN_RATING <= low <= high <= MAX_RATING


def test_the_server_goes_on_without_players(settings: Settings) -> None:
    """Whatever ends the players, the server serves on, and ends as it should."""
    with launched(settings) as (launcher, player):
        os.kill(player, signal.SIGKILL)
        wait_until(lambda: not is_alive(player))
        assert launcher.poll() is None
        launcher.send_signal(signal.SIGINT)

        assert ("", "") == launcher.communicate()
        assert 0 == launcher.returncode


def test_nobody_plays_on_after_a_killed_launcher(settings: Settings) -> None:
    """`kill -9` of the launcher ends the players too."""
    with launched(settings) as (launcher, player):
        launcher.kill()
        wait_until(lambda: not is_alive(player))


@pytest.mark.parametrize("key", ["", "open sesame"])
def test_writing_may_need_a_key(settings: Settings, key: str) -> None:
    """With API_KEYS it plays with the key of LADDER_DEMO_KEY; without one it says what is missing, and serves on."""
    keys = hashlib.sha256(b"open sesame").hexdigest()
    with launched(settings, API_KEYS=keys, LADDER_DEMO_KEY=key) as (launcher, _):
        if key:
            wait_until(lambda: _played(settings) > 2)
        else:
            assert launcher.stderr is not None
            assert "The demo traffic ends: writing needs a key: set LADDER_DEMO_KEY" in launcher.stderr.readline()
            assert launcher.poll() is None
        launcher.send_signal(signal.SIGTERM)

        assert ("", "") == launcher.communicate()
        assert 0 == launcher.returncode
