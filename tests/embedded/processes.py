"""What the tests of started programs share: waiting for a condition, and looking at processes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import redis

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.embedded import EmbeddedPair

DEADLINE_SECONDS = 30.0


def wait_until(condition: Callable[[], object]) -> None:
    """Return as soon as the condition holds; fail when it does not in time. Never a sleep of a guessed length."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition does not come true"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected by its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc/self").exists()


def postmaster(data: Path) -> int:
    """The process id of the PostgreSQL over a data directory."""
    return int((data / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def server_pids(pair: EmbeddedPair, data: Path) -> list[int]:
    """The process ids of both servers."""
    with redis.Redis.from_url(pair.redis_url) as client:
        return [postmaster(data), client.info("server")["process_id"]]


def sockets(pair: EmbeddedPair) -> Path:
    """The directory that both sockets are in; a killed owner leaves it, empty, to its successor."""
    return Path(urlsplit(pair.redis_url).path).parent
