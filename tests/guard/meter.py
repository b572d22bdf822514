"""A proxy that counts: the round trips to a store, what was asked on each, and the bytes both ways."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import hiredis
import msgspec

from service.store import lua
from tests.servers.proxy import Proxy

SETTLE_SECONDS = 0.003
"""Every reply waits as long, so that a request in several pieces is not answered between two of them."""

_SCRIPTS = {script.sha.encode(): script.name for script in lua.ALL}
_SET_UP = {"auth", "client", "hello", "ping", "script", "select"}


class Line:
    """One connection: what was asked on each round trip, and how many bytes came back."""

    def __init__(self) -> None:
        self.trips: list[bytearray] = []
        self.told = 0
        self._answered = True

    def note(self, data: bytes, *, reply: bool) -> None:
        """Take down what passes."""
        if reply:
            self.told += len(data)
        elif self._answered:
            self.trips.append(bytearray(data))
        else:
            self.trips[-1] += data
        self._answered = reply


class Count(msgspec.Struct):
    """What went to one store: the commands or statements of each round trip, and the bytes asked and told."""

    trips: list[list[str]] = []
    asked: int = 0
    told: int = 0

    @property
    def commands(self) -> list[str]:
        """All of them."""
        return [name for trip in self.trips for name in trip]


class Meter(Proxy):
    """
    Counts per connection; `latency` delays each reply, and must stay above 0.

    What the feeding of the mirror does on connections of its own is no request's, and not counted.
    """

    def __init__(self, upstream: str | tuple[str, int]) -> None:
        super().__init__(upstream)
        self.latency = SETTLE_SECONDS
        self._lines: list[Line] = []
        self._line_of: dict[object, Line] = {}
        self._marks: dict[Line, tuple[int, int]] = {}

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await super()._connect()
        line = Line()
        self._lines.append(line)
        self._line_of[reader] = self._line_of[writer] = line
        return reader, writer

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool = False) -> None:
        line = self._line_of[reader if replies else writer]
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if replies:
                    await asyncio.sleep(self.latency)
                line.note(data, reply=replies)
                writer.write(data)
                await writer.drain()
        writer.close()

    def begin(self) -> None:
        """Count from here."""
        self._marks = {line: (len(line.trips), line.told) for line in self._lines}

    def counted(self, read: Callable[[bytes], list[str] | None], feeds: Callable[[bytes], bool]) -> Count:
        """
        What has passed since, but for the connections of which some trip is a feeding one.

        `read` says None of what ends inside a command: the rest of it came after the first reply, on the same trip.
        """
        count = Count()
        for line in self._lines:
            if any(feeds(bytes(trip)) for trip in line.trips):
                continue
            trips, told = self._marks.get(line, (0, 0))
            count.told += line.told - told
            begun = b""
            for trip in line.trips[trips:]:
                begun += bytes(trip)
                names = read(begun)
                if names is None:
                    continue
                if names:
                    count.trips.append(names)
                    count.asked += len(begun)
                begun = b""
        return count


# Redis


def redis_commands(trip: bytes) -> list[str] | None:
    """The commands of a pipeline, scripts by their names; none of what only sets a connection up; None if it is cut."""
    reader = hiredis.Reader()
    reader.feed(trip)
    found = []
    while (command := reader.gets()) is not False:
        name = command[0].decode().lower()
        found.append(_SCRIPTS.get(command[1], "evalsha") if name == "evalsha" else name)
    if reader.has_data():
        return None
    return [] if set(found) <= _SET_UP else found


def feeds_redis(trip: bytes) -> bool:
    """Whether this is the tailer's."""
    return lua.APPLY.sha.encode() in trip or lua.BEGIN.sha.encode() in trip


# Postgres


def postgres_statements(trip: bytes) -> list[str] | None:
    """One word for each message that the server answers by itself: `query` or `sync`; none while it connects."""
    if trip[:1] != b"\0" and sum(1 + length for _, length in _messages(trip)) != len(trip):
        return None
    return [{"Q": "query", "S": "sync"}[kind] for kind, _ in _messages(trip) if kind in "QS"]


def feeds_postgres(trip: bytes) -> bool:
    """Whether this is the tailer's, who alone asks for a lock by name."""
    return b"pg_try_advisory_lock" in trip


def _messages(trip: bytes) -> Iterator[tuple[str, int]]:
    """The messages of a client by kind, and the length each claims; a start-up message has none, and is no trip of ours."""
    at = 0
    while trip[:1] != b"\0" and at + 5 <= len(trip):
        length = int.from_bytes(trip[at + 1 : at + 5])
        yield chr(trip[at]), length
        at += 1 + length
