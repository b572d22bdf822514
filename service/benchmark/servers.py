"""The processes that are measured: the service as a container runs it, and the bare handler."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from service.checkout import import_path
from service.parent_death import spawn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_READY_SECONDS = 60.0
_BOARD_SECONDS = 600.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 5.0
UNLIMITED = {"RATE_LIMIT_PER_SECOND": "1000000", "RATE_LIMIT_BURST": "1000000"}
"""The limit counts every request, and refuses none."""


class ServiceFailed(Exception):
    """The service did not start, or does not answer as it should; the message is one sentence."""


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(base_url: str, head: str, body: str = "") -> Answer:
    """Ask once; `head` is a method and a target. Raises `ServiceFailed` if nobody answers."""
    parts = urlsplit(base_url)
    method, _, target = head.partition(" ")
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=_ANSWER_SECONDS)
    try:
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request(method, target, body or None, headers)
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    except (OSError, http.client.HTTPException) as error:
        message = f"{base_url} does not answer ({error})"
        raise ServiceFailed(message) from error
    finally:
        connection.close()


def ranked_elsewhere(base_url: str) -> int:
    """How many answers of a service were ranked by anything but Redis, since it started."""
    lines = ask(base_url, "GET /metrics").body.decode().splitlines()
    counts = (line.split() for line in lines if line.startswith("ladder_rank_answers_total{"))
    return sum(round(float(value)) for name, value in counts if 'source="redis"' not in name)


class Server:
    """A server that runs, and its processes."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = url
        self.log = log
        self.process = process

    def workers(self) -> list[int]:
        """The processes that serve at this moment; Linux only."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]

    def wait_until(self, target: str, *, source: str | None = None) -> None:
        """Return when this answers 200, ranked by that store; raises `ServiceFailed` if it does not come to that."""
        deadline = time.monotonic() + (_BOARD_SECONDS if source else _READY_SECONDS)
        while True:
            with suppress(ServiceFailed):
                answer = ask(self.url, f"GET {target}")
                if answer.status == http.client.OK and source in (None, answer.headers.get("x-rank-source")):
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
                message = f"the server at {self.url} did not become ready ({last[0] if last else 'it said nothing'})"
                raise ServiceFailed(message)
            time.sleep(_POLL_SECONDS)


@contextmanager
def service(
    database_url: str, redis_url: str, folder: Path, *, workers: int, env: Mapping[str, str] = UNLIMITED
) -> Iterator[Server]:
    """Run the service over these stores, everything switched on, from when its board is ready to the block's end."""
    port = _free_port()
    environment = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "PORT": str(port),
        "WORKERS": str(workers),
        "DRAIN_SECONDS": "0",
        **env,
    }
    with _running(["-m", "service"], environment, port, folder / "service.log") as server:
        server.wait_until("/health/ready")
        server.wait_until("/leaderboard?limit=1", source="redis")
        yield server


@contextmanager
def ceiling(bodies: Mapping[str, bytes], folder: Path, *, workers: int) -> Iterator[Server]:
    """Run the bare handler, which answers `/<name>` with that body."""
    directory = folder / "bodies"
    directory.mkdir()
    for name, body in bodies.items():
        (directory / name).write_bytes(body)
    port = _free_port()
    words = ["-m", "service.benchmark.ceiling", str(port), str(workers), str(directory)]
    with _running(words, {}, port, folder / "ceiling.log") as server:
        server.wait_until(f"/{next(iter(bodies))}")
        yield server


@contextmanager
def _running(words: Sequence[str], env: Mapping[str, str], port: int, log: Path) -> Iterator[Server]:
    environment = {
        "PATH": os.environ.get("PATH", ""),
        **import_path(None),
        **env,
    }
    with log.open("wb") as output:
        command = [sys.executable, "-P", *words]
        process = spawn(command, death_signal=signal.SIGTERM, env=environment, cwd=log.parent, output=output)
    try:
        yield Server(f"http://127.0.0.1:{port}", process, log)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        # Its workers are in its process group, and are gone already unless something went wrong.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
