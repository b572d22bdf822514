"""
Open streams of the leaderboard's top, and how soon a user is answered beside them: `.venv/bin/python -m tests.load.streams URL`.

The top changes four times a second all the while. It opens the streams, measures, and tells what it found as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import time
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import uvloop

from tests.api.wire import request

from .overload import Load, Report

CHANGES = 4
"""Times a second that the top changes."""
OPENED_AT_ONCE = 50


class Told(msgspec.Struct):
    """What listeners were told: the streams open, and events per stream in the time, the fewest and the most."""

    streams: int
    fewest: int
    most: int


class Listener(asyncio.Protocol):
    """A stream of which nothing is kept but how many events came."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self.heard = 0

    def connection_made(self, transport: Any) -> None:
        transport.write(request("GET", "/leaderboard/stream?limit=10", last=False))

    def data_received(self, data: bytes) -> None:
        self.heard += data.count(b"event: leaderboard")

    def connection_lost(self, _: Exception | None) -> None:
        self._crowd.listeners.discard(self)


class Crowd:
    """Everybody who listens."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.listeners: set[Listener] = set()

    async def gather(self, streams: int) -> None:
        """Open so many streams, a few at a time, and wait until each has been told of a page."""
        loop = asyncio.get_running_loop()
        for first in range(0, streams, OPENED_AT_ONCE):
            opened = await asyncio.gather(
                *(
                    loop.create_connection(lambda: Listener(self), "127.0.0.1", self._port)
                    for _ in range(min(OPENED_AT_ONCE, streams - first))
                )
            )
            self.listeners.update(listener for _, listener in opened)
            async with asyncio.timeout(20):
                while not all(listener.heard for _, listener in opened):
                    await asyncio.sleep(0.001)

    async def told(self, seconds: float) -> Told:
        """Listen for so long."""
        before = {listener: listener.heard for listener in self.listeners}
        await asyncio.sleep(seconds)
        heard = [listener.heard - before[listener] for listener in self.listeners]
        return Told(len(heard), min(heard, default=0), max(heard, default=0))


async def change(port: int, seconds: float) -> None:
    """Have somebody else lead the board, `CHANGES` times a second."""
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as client:
        top = (await client.get("/leaderboard?limit=2")).json()["items"]
        begun = time.perf_counter()
        for turn in count(1):
            answer = await client.put(f"/users/{top[turn % 2]['id']}/rating", json={"rating": 4000 + turn})
            answer.raise_for_status()
            await asyncio.sleep(max(begun + turn / CHANGES - time.perf_counter(), 0))
            if time.perf_counter() - begun > seconds:
                return


async def measure(port: int, rate: float, seconds: float) -> Report:
    """Ask for users, `rate` times a second, while the top changes."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        rows = (await client.get("/leaderboard?limit=1000&offset=2")).json()["items"]
    load = Load(port, [request("GET", f"/users/{row['id']}", last=False) for row in rows])
    try:
        report, _ = await asyncio.gather(load.open(rate, seconds), change(port, seconds))
        return report
    finally:
        load.close()


class Outcome(msgspec.Struct):
    """How soon users were answered, and what listeners were told meanwhile."""

    reads: Report
    told: Told


async def _listen(port: int, streams: int, seconds: float) -> None:
    crowd = Crowd(port)
    await crowd.gather(streams)
    print("open", flush=True)  # noqa: T201  the signal to begin
    print(msgspec.json.encode(await crowd.told(seconds)).decode(), flush=True)  # noqa: T201  what it is for


def run(port: int, *, streams: int, rate: float, seconds: float) -> Outcome:
    """Listen in a process of its own, and measure from this one."""
    command = [sys.executable, "-m", "tests.load.streams", f"http://127.0.0.1:{port}", "--listen", str(streams)]
    with subprocess.Popen([*command, "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True) as crowd:
        assert crowd.stdout
        assert "open\n" == crowd.stdout.readline()
        report = uvloop.run(measure(port, rate, seconds))
        return Outcome(report, msgspec.json.decode(crowd.stdout.readline(), type=Told))


def main() -> None:
    """Measure without and with streams, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8080")
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=200, help="reads a second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--listen", type=int, help="only listen, with so many streams")
    arguments = parser.parse_args()
    port = urlsplit(arguments.url).port or 80
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if arguments.listen is not None:
        uvloop.run(_listen(port, arguments.listen, arguments.seconds))
        return
    for streams in (0, arguments.streams):
        outcome = run(port, streams=streams, rate=arguments.rate, seconds=arguments.seconds)
        print(msgspec.json.format(msgspec.json.encode(outcome)).decode())  # noqa: T201  what it is for


if __name__ == "__main__":
    main()
