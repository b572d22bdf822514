"""The real service as a process of its own, the way a container runs it, and what the tests ask of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import httpx
import msgspec
import psycopg

from service.model import User, UserId
from service.parent_death import spawn
from service.settings import Settings
from tests.ranking.equality import ledger_board, mirror_board

from .wire import Reply, exchange

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 20.0
STOP_SECONDS = 10.0


def wait_until(condition: Callable[[], object], *, seconds: float = READY_SECONDS) -> None:
    """Return as soon as the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Service:
    """A running service: its client, its stores, and its log."""

    def __init__(self, process: subprocess.Popen[bytes], settings: Settings, log: Path) -> None:
        self.settings = settings
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=6, trust_env=False)
        self._process = process
        self._log = log

    def get(self, target: str, **headers: str) -> httpx.Response:
        """Answer of a GET; `if_match="x"` becomes the header `If-Match`."""
        return self.client.get(target, headers=_headers(headers))

    def post(self, body: object, target: str = "/users", **headers: str) -> httpx.Response:
        """Answer of a POST of JSON."""
        return self.client.post(target, json=body, headers=_headers(headers))

    def put(self, user_id: str, rating: object, **headers: str) -> httpx.Response:
        """Answer of a new rating."""
        return self.client.put(f"/users/{user_id}/rating", json={"rating": rating}, headers=_headers(headers))

    def created(self, username: str, **fields: object) -> dict[str, object]:
        """A user that was created for the occasion, as the answer shows them."""
        answer = self.post({"username": username, **fields})
        assert answer.status_code == 201, answer.text
        shown: dict[str, object] = answer.json()
        return shown

    def raw(self, request: bytes) -> Reply:
        """Answer to bytes that no well-behaved client sends."""
        return exchange(self.settings.port, request)

    def rows(self) -> dict[UserId, User]:
        """Every user that Postgres holds, by id: what the model of the board is computed from."""
        with psycopg.connect(self.settings.database_url) as connection:
            connection.execute("SET timezone = 'UTC'")
            found = connection.execute("SELECT id, username, rating, version, created_at, updated_at FROM users")
            return {row[0]: User(*row) for row in found}

    def count(self) -> int:
        """How many users Postgres holds."""
        with psycopg.connect(self.settings.database_url) as connection:
            row = connection.execute("SELECT count(*) FROM users").fetchone()
            return int(row[0]) if row else -1

    def execute(self, statement: str) -> None:
        """Run SQL behind the service's back."""
        with psycopg.connect(self.settings.database_url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def is_ready(self) -> bool:
        """Whether it says that it can serve reads; fails when the process has ended."""
        assert self._process.poll() is None, self.log()
        try:
            return self.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def is_mirrored(self) -> bool:
        """Whether Redis answers, and holds what Postgres does, row by row."""
        if self.get("/leaderboard?limit=1").headers.get("X-Rank-Source") != "redis":
            return False
        board, users, size = mirror_board(self.settings)
        return ledger_board(self.settings) == (board, users) and size == len(board)

    def workers(self) -> list[int]:
        """The ids of the processes that serve at this moment."""
        supervisor = self._process.pid
        return [int(pid) for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()]

    def at_failpoint(self, point: str) -> list[int]:
        """The processes that have come to a failpoint, one for each time something happened there."""
        events = (line for line in self.logged() if line["event"] == "failpoint" and line["point"] == point)
        return [int(str(line["pid"])) for line in events]

    def log(self) -> str:
        """What the process has said."""
        return self._log.read_text()

    def logged(self, request_id: str = "") -> list[dict[str, object]]:
        """The events that the process has logged: of one request, or all."""
        lines = (
            msgspec.json.decode(line, type=dict[str, object]) for line in self.log().splitlines() if line[0] == "{"
        )
        return [line for line in lines if request_id in ("", line.get("request_id"))]

    def defects(self) -> list[dict[str, object]]:
        """What the process has logged of requests that failed, or were answered 500."""
        return [
            line
            for line in self.logged()
            if line["event"] == "request.failed" or (line["event"] == "request" and line["status"] == 500)
        ]

    def stop(self) -> None:
        """Ask the process to stop and wait for it; one that does not is killed with its workers, and fails."""
        self.client.close()
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        finally:
            # Its workers are in its process group, and are gone unless something went wrong.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _headers(named: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in named.items()}


@contextlib.contextmanager
def serving(
    database_url: str,
    redis_url: str,
    *,
    workers: int = 1,
    port: int | None = None,
    failpoints: str = "",
    env: Mapping[str, str] = MappingProxyType({}),
    until: Callable[[Service], object] = Service.is_ready,
) -> Iterator[Service]:
    """
    Run the service over these stores until the end of the block, from the moment it says that it is ready.

    A worker that a failpoint stops as soon as it starts says nothing: there `until` tells when the block begins.
    It listens on `port`, else on a free one. `failpoints` are armed as `service.failpoints` describes; `env` are
    further variables.
    """
    settings = Settings(database_url=database_url, redis_url=redis_url, workers=workers, port=port or free_port())
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "PORT": str(settings.port),
        "WORKERS": str(workers),
        "LOG_LEVEL": "debug",
        "RATE_LIMIT_PER_SECOND": "0",
        "LADDER_FAILPOINTS": failpoints,
        "LADDER_TESTING": "true",
        "DRAIN_SECONDS": "0",
        **env,
    }
    with tempfile.TemporaryDirectory(prefix="ladder-api-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            command = [sys.executable, "-P", "-m", "service"]
            process = spawn(command, death_signal=signal.SIGTERM, env=environment, cwd=folder, output=output)
        service = Service(process, settings, log)
        try:
            wait_until(lambda: until(service))
            yield service
        finally:
            service.stop()
