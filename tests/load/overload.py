"""
More than a service can do: what it is capable of first, then a multiple of that, then how soon it is itself again.

    .venv/bin/python -m tests.load.overload http://127.0.0.1:8080 --seconds 300 --times 2

The load is mixed: six reads of a user in ten, two pages, a search and a write. It is open: requests are sent when
they are due, whether or not those before have been answered, as a crowd does that knows nothing of each other. It
needs a board with users (`scripts/server --demo-users 10000`), no rate limit, and the service on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import uvloop

from tests.api.wire import request

from .processor import ProcessorTime, processor_time

TICK_SECONDS = 0.005
MOST_CONNECTIONS = 6000
WELL_SECONDS = 0.25
"""An answer as quick as that, three times in a row, and the service is itself again."""
REUSE_SECONDS = 1.0
"""A connection that was idle for longer is not used again: the service may be about to close it."""
_KINDS = 1000


ONSET_SECONDS = 5.0
"""What a rush begins with is a burst, and waits; how long answers take is told of what comes after."""


class Report(msgspec.Struct):
    """
    What came back: how many of each status, and how long those behind the onset took, in milliseconds.

    `unsent` are requests for which there was no connection left, `broken` those whose connection was. `processor` is
    what the service's own processes had of the machine meanwhile, nothing where they are not known.
    """

    seconds: float
    offered: int
    unsent: int
    broken: int
    statuses: dict[int, int]
    quantiles: dict[int, dict[str, float]]
    processor: ProcessorTime = ProcessorTime()

    def ms(self, status: int, quantile: str) -> float:
        """Milliseconds that so many of the answers of a status took at most; 0 if there were none."""
        return self.quantiles.get(status, {}).get(quantile, 0.0)


class _Connection(asyncio.Protocol):
    """One connection to the service, with at most one request under way."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: Any = None
        self._received = b""
        self._begun = 0.0
        self.idle_since = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, sent: bytes) -> None:
        self._begun = time.perf_counter()
        self._transport.write(sent)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        lowered = head.lower()
        start = lowered.find(b"content-length:")
        length = int(lowered[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
        if len(body) >= length:
            self._received, begun, self._begun = b"", self._begun, 0.0
            self._load.answered(self, int(head[9:12]), time.perf_counter() - begun)

    def connection_lost(self, _: Exception | None) -> None:
        self._load.lost(self, under_way=bool(self._begun))

    def close(self) -> None:
        self._transport.abort()


class Load:
    """Requests sent to one address; `open` sends as many a second, `closed` keeps as many under way."""

    def __init__(self, port: int, requests: Sequence[bytes], *, processes: Sequence[int] = ()) -> None:
        self._port = port
        self._processes = processes
        self._requests: Iterator[bytes] = cycle(requests)
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._opening = 0
        self._keeps = False
        self._reset()

    def _reset(self) -> None:
        self._seconds: defaultdict[int, list[float]] = defaultdict(list)
        self._sent = self._unsent = self._broken = 0
        self._statuses: Counter[int] = Counter()
        self._processor_before = processor_time(self._processes)
        self._begun = self._told_from = time.perf_counter()

    async def closed(self, connections: int, seconds: float) -> Report:
        """Send the next request as soon as one is answered, over so many connections."""
        self._reset()
        self._keeps = True
        await asyncio.gather(*(self._open() for _ in range(connections)))
        await asyncio.sleep(seconds)
        self._keeps = False
        return await self._settled()

    async def open(self, rate: float, seconds: float) -> Report:
        """Send `rate` requests a second, each when it is due."""
        self._reset()
        self._told_from = self._begun + min(ONSET_SECONDS, seconds / 2)
        tasks = set()
        due = 0.0
        while (elapsed := time.perf_counter() - self._begun) < seconds:
            for _ in range(int(elapsed * rate - due)):
                due += 1
                if self._idle and time.perf_counter() - self._idle[-1].idle_since < REUSE_SECONDS:
                    self._ask(self._idle.pop())
                elif len(self._all) + self._opening < MOST_CONNECTIONS:
                    tasks.add(task := asyncio.create_task(self._open()))
                    task.add_done_callback(tasks.discard)
                else:
                    self._unsent += 1
            await asyncio.sleep(TICK_SECONDS)
        return await self._settled()

    async def _settled(self) -> Report:
        seconds = time.perf_counter() - self._begun
        processor = processor_time(self._processes).since(self._processor_before)
        deadline = time.perf_counter() + 30
        while len(self._idle) < len(self._all) + self._opening and time.perf_counter() < deadline:
            await asyncio.sleep(TICK_SECONDS)
        quantiles = {status: _quantiles(sorted(taken)) for status, taken in sorted(self._seconds.items())}
        unanswered = len(self._all) + self._opening - len(self._idle)
        broken = self._broken + unanswered
        return Report(seconds, self._sent, self._unsent, broken, dict(self._statuses), quantiles, processor)

    async def _open(self) -> None:
        self._opening += 1
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
        except OSError:
            self._broken += 1
            return
        finally:
            self._opening -= 1
        self._all.add(connection)
        self._ask(connection)

    def _ask(self, connection: _Connection) -> None:
        self._sent += 1
        connection.ask(next(self._requests))

    def answered(self, connection: _Connection, status: int, seconds: float) -> None:
        """Take down an answer."""
        self._statuses[status] += 1
        if time.perf_counter() - seconds >= self._told_from:
            self._seconds[status].append(seconds)
        if self._keeps:
            self._ask(connection)
        else:
            connection.idle_since = time.perf_counter()
            self._idle.append(connection)

    def lost(self, connection: _Connection, *, under_way: bool) -> None:
        """Take down a connection that has ended."""
        self._broken += under_way
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Hang up."""
        for connection in list(self._all):
            connection.close()


def _quantiles(taken: Sequence[float]) -> dict[str, float]:
    return {
        name: round(1000 * taken[min(len(taken) - 1, int(part * len(taken)))], 1)
        for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }


def mixture(port: int) -> list[bytes]:
    """The requests of the load: of users that the service has, in an order that is always the same."""
    rows = httpx.get(f"http://127.0.0.1:{port}/leaderboard?limit=1000", trust_env=False).json()["items"]
    chance = random.Random(64)
    kinds = Counter(user=6, page=2, search=1, write=1)
    return [
        _of_kind(kind, chance.choice(rows), chance)
        for kind in chance.choices(*zip(*kinds.items(), strict=True), k=_KINDS)
    ]


def _of_kind(kind: str, row: dict[str, Any], chance: random.Random) -> bytes:
    match kind:
        case "user":
            return request("GET", f"/users/{row['id']}", last=False)
        case "page":
            return request("GET", f"/leaderboard?limit=20&offset={chance.randrange(500)}", last=False)
        case "search":
            return request("GET", f"/users/search?username={row['username'][:3]}", last=False)
        case _:
            body = b'{"rating":%d}' % chance.randint(100, 5000)
            return request(
                "PUT", f"/users/{row['id']}/rating", [("Content-Type", "application/json")], body, last=False
            )


async def recovery(load: Load) -> float:
    """Seconds until it answers as ever."""
    begun = time.perf_counter()
    in_a_row = 0
    while in_a_row < 3:
        report = await load.closed(1, 0.0)
        in_a_row = in_a_row + 1 if report.ms(200, "max") and report.ms(200, "max") < 1000 * WELL_SECONDS else 0
    return time.perf_counter() - begun


class Outcome(msgspec.Struct):
    """What the service does as a rule, what became of the overload, and how many seconds it took to recover."""

    usual: Report
    overload: Report
    recovered: float


async def overload(
    port: int, *, times: float, seconds: float, warm: float = 3.0, processes: Sequence[int] = ()
) -> Outcome:
    """Load it with `times` of what it is capable of."""
    requests = mixture(port)
    measured = Load(port, requests, processes=processes)
    usual = await measured.closed(64, warm)
    measured.close()
    load = Load(port, requests, processes=processes)
    report = await load.open(times * usual.statuses.get(200, 0) / usual.seconds, seconds)
    load.close()
    quiet = Load(port, requests)
    try:
        return Outcome(usual, report, await recovery(quiet))
    finally:
        quiet.close()


def run(port: int, *, times: float, seconds: float, processes: Sequence[int] = ()) -> Outcome:
    """Load it from this process, on a loop of its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return uvloop.run(overload(port, times=times, seconds=seconds, processes=processes))


def main() -> None:
    """Load a service and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8080")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--times", type=float, default=2)
    parser.add_argument(
        "--processes", type=int, nargs="*", default=(), help="the service's workers, whose processor time is told too"
    )
    arguments = parser.parse_args()
    outcome = run(
        urlsplit(arguments.url).port or 80,
        times=arguments.times,
        seconds=arguments.seconds,
        processes=arguments.processes,
    )
    print(msgspec.json.format(msgspec.json.encode(outcome)).decode())  # noqa: T201  what it is for


if __name__ == "__main__":
    main()
