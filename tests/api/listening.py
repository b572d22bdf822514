"""A client of the leaderboard's stream, which hears what comes as it comes."""

from __future__ import annotations

import contextlib
import http.client
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from .serving import Service


class Heard(msgspec.Struct, frozen=True):
    """An event: its id, its page, and when it came."""

    id: str
    page: dict[str, Any]
    at: float

    @property
    def ratings(self) -> list[int]:
        """The ratings on the page."""
        return [row["rating"] for row in self.page["items"]]


class Stream:
    """An open stream."""

    def __init__(self, service: Service, query: str = "limit=3", **headers: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", service.settings.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request("GET", f"/leaderboard/stream?{query}", headers=named)
        self._answer = self._connection.getresponse()
        self.status, self.headers = self._answer.status, self._answer.headers
        self.retry_ms: list[int] = []
        self.beats: list[float] = []
        self._events: queue.Queue[Heard] = queue.Queue()
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        fields: dict[str, str] = {}
        with contextlib.suppress(http.client.HTTPException, OSError, ValueError, AttributeError):
            for line in iter(self._answer.readline, b""):
                name, _, value = line.decode().rstrip("\n").partition(": ")
                match name:
                    case "":
                        if "data" in fields:
                            assert "leaderboard" == fields["event"]
                            page = msgspec.json.decode(fields["data"])
                            self._events.put(Heard(fields["id"], page, time.monotonic()))
                        if value:
                            self.beats.append(time.monotonic())
                        fields = {}
                    case "retry":
                        self.retry_ms.append(int(value))
                    case _:
                        fields[name] = value

    def event(self, *, seconds: float = 10.0) -> Heard:
        """The next event; fails when none comes in time."""
        try:
            return self._events.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError("no event came in time") from None

    def events(self, *, seconds: float) -> list[Heard]:
        """What comes in this time."""
        deadline, heard = time.monotonic() + seconds, []
        with contextlib.suppress(queue.Empty):
            while True:
                heard.append(self._events.get(timeout=max(deadline - time.monotonic(), 0)))
        return heard

    def until(self, ratings: list[int], *, seconds: float = 10.0) -> Heard:
        """The next event with these ratings, past whatever comes before it."""
        deadline = time.monotonic() + seconds
        while True:
            heard = self.event(seconds=max(deadline - time.monotonic(), 0.001))
            if heard.ratings == ratings:
                return heard

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError, AttributeError):
            # Wakes whoever reads from it.
            self._connection.sock.shutdown(2)
        self._listening.join(5)
        self._connection.close()


@contextlib.contextmanager
def listening(service: Service, query: str = "limit=3", **headers: str) -> Iterator[Stream]:
    """A stream that is open for the block."""
    stream = Stream(service, query, **headers)
    try:
        yield stream
    finally:
        stream.close()
