"""What the tests of started programs share: pairs of other processes, waiting, and looking at processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import redis

from service.embedded import EmbeddedPair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 30.0

OWNER = """
import json, sys
from pathlib import Path
from service import parent_death
from service.embedded import EmbeddedError, start_pair

data, parent_death.kernel_tells = Path(sys.argv[1]), sys.argv[2] == "kernel" and parent_death.kernel_tells
try:
    with start_pair(data) as pair:
        print(json.dumps([pair.database_url, pair.redis_url]), flush=True)
        sys.stdin.read()
except EmbeddedError as error:
    print(json.dumps(str(error)), flush=True)
"""


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


@contextlib.contextmanager
def owner_process(data: Path, watch: str = "kernel", *, user: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Another process that starts a pair, tells its URLs or its error, and holds it until its stdin closes."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data), watch],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    ) as process:
        yield process


def told(process: subprocess.Popen[str]) -> EmbeddedPair | str:
    """What the other process said: its pair or its error."""
    assert process.stdout is not None
    answer = json.loads(process.stdout.readline())
    return answer if isinstance(answer, str) else EmbeddedPair(*answer)


def execute(pair: EmbeddedPair, statement: str) -> list[tuple[object, ...]]:
    """Run one statement and return its rows."""
    with psycopg.connect(pair.database_url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def is_usable(pair: EmbeddedPair) -> bool:
    """Whether both servers answer."""
    with redis.Redis.from_url(pair.redis_url) as client:
        return bool(client.ping()) and execute(pair, "SELECT 1") == [(1,)]
