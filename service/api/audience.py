"""
Everybody who watches the top of the board: one reader for all of them, and each changed page is encoded once.

While anybody listens the board is read almost four times a second, whoever changes it and through whichever process. To
look also when this process has written something would be no sooner: four events a second are as many as there may be.
Counted by Postgres it is read more seldom.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
import structlog

from service import metrics
from service.api.answers import encode
from service.api.leaderboard import PageView
from service.errors import LadderError, Overloaded
from service.sockets import hang_up

if TYPE_CHECKING:
    from service.model import Page, Row
    from service.ranking.answers import Answer
    from service.ranking.cursor import Cursors
    from service.sockets import Peer

LONGEST = 100
"""Rows of the longest page that can be watched. So many are read, and the shorter pages are their beginning."""
APART_SECONDS = 0.25
"""From one event of a listener to the next, at least."""
READ_SECONDS = 0.26
"""From one read to the next: a little more, so that nobody has to be held back but who has just come."""
AGAIN_SECONDS = 1.0
"""The same while nobody can answer."""
SHARE = 0.1
"""The most of its time that the reader keeps Postgres busy, which counts the board for each page."""
SLOW_SECONDS = 2.0
"""The longest time between two reads all the same."""
SEND_SECONDS = 5.0
"""How long a listener may take to receive what is sent to them."""
SWEEP_SECONDS = 0.25
"""From one look for heartbeats that are due, and for listeners that do not receive, to the next."""
AT_ONCE = 8
"""Listeners that are told in one go; then others have a turn."""
SPREAD_SECONDS = 0.15
"""How long it may take to tell all of them. The server writes to one connection after the other: all at once they would
be in front of every other answer."""
FAREWELL_SECONDS = 1.0
"""How long connections may take to empty at the end of the process."""
_TURN_SECONDS = 0.001
HEARTBEAT = b": heartbeat\n\n"

_log = structlog.get_logger(__name__)


class Event(msgspec.Struct, frozen=True):
    """A page, known by its content, and the bytes that tell of it."""

    rows: list[Row]
    total: int
    id: str
    text: bytes


def event(rows: list[Row], total: int, following: str | None) -> Event:
    """Return the event that tells of this page."""
    page = encode(PageView(rows, total, following))
    known_by = hashlib.blake2b(page, digest_size=8).hexdigest()
    return Event(rows, total, known_by, b"id: %b\nevent: leaderboard\ndata: %b\n\n" % (known_by.encode(), page))


class Listener:
    """One who watches: the page that they have, and at most one newer one that waits to be sent."""

    def __init__(self, limit: int, seen: str | None, peer: Peer | None) -> None:
        self.limit = limit
        self.peer = peer
        self.sending_since = math.inf
        self.next_beat = math.inf
        self.was_cut = False
        self.is_over = False
        self._seen = seen
        self._pending: Event | None = None
        self._beats = False
        self._due = -math.inf
        self._woken = asyncio.Event()
        self._task = asyncio.current_task()

    def offer(self, page: Event, *, stale: bool) -> bool:
        """
        Have this page sent in place of whatever waits; returns whether there is anything to send.

        A stale one only to who has none: it may be from before the page that they have.
        """
        if stale and (self._seen is not None or self._pending):
            return False
        if page.id == self._seen:
            self._pending = None
        elif page is not self._pending:
            self._pending = page
            self._woken.set()
            return True
        return False

    def beat(self) -> None:
        """Have a heartbeat sent."""
        self._beats = True
        self._woken.set()

    def end(self) -> None:
        """Have the stream end."""
        self.is_over = True
        self._woken.set()

    def cut(self) -> None:
        """End the stream in the middle of what is being sent."""
        self.was_cut = True
        if self._task:
            self._task.cancel()

    async def next(self) -> bytes:
        """Return what is to be sent next, when there is something; nothing when the stream is over."""
        while not (self._pending or self._beats or self.is_over):
            self._woken.clear()
            await self._woken.wait()
        if self._pending and not self.is_over:
            # Who was sent what was there as they came may be told of the next read at once. Meanwhile a newer page may
            # take the place of this one.
            await asyncio.sleep(max(self._due - asyncio.get_running_loop().time(), 0))
        return self.take()

    def take(self) -> bytes:
        """Return what waits to be sent."""
        said = b""
        if self._beats:
            self._beats, said = False, HEARTBEAT
        if self._pending:
            page, self._pending = self._pending, None
            self._seen = page.id
            self._due = asyncio.get_running_loop().time() + APART_SECONDS
            said += page.text
            metrics.STREAM_EVENTS.inc()
        return said


class Audience:
    """
    The listeners of this process, up to `most` of them.

    `read` returns the first `LONGEST` rows, and raises `LadderError` when nobody can answer. A heartbeat is sent every
    `heartbeat_seconds`. When `ending` is set all streams end.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[tuple[Answer[Page], Cursors]]],
        *,
        most: int,
        heartbeat_seconds: float,
        ending: asyncio.Event,
    ) -> None:
        self._read = read
        self._most = most
        self._heartbeat_seconds = heartbeat_seconds
        self._ending = ending
        self._listeners: set[Listener] = set()
        self._anybody = asyncio.Event()
        self._held: tuple[Answer[Page], Cursors] | None = None
        self._events: dict[int, Event] = {}
        self._unreachable: set[Peer] = set()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._listeners)

    def join(self, limit: int, seen: str | None, peer: Peer | None) -> Listener:
        """
        Take in a listener, who has the page `seen`; raises `Overloaded` if there are too many.

        To be called in the task that sends to them.
        """
        if len(self._listeners) >= self._most:
            raise Overloaded("As many streams are open as there may be.")
        listener = Listener(limit, seen, peer)
        listener.next_beat = asyncio.get_running_loop().time() + self._heartbeat_seconds
        self._listeners.add(listener)
        self._anybody.set()
        if self._held:
            listener.offer(self._event(limit, *self._held), stale=self._held[0].stale)
        if self._ending.is_set():
            listener.end()
        return listener

    def leave(self, listener: Listener) -> None:
        """Forget a listener."""
        self._listeners.discard(listener)

    async def run(self) -> None:
        """Read the board and tell everybody; for ever, end it by cancelling."""
        async with asyncio.TaskGroup() as group:
            for work in (self._follow, self._keep, self._end):
                group.create_task(work())

    async def _follow(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await self._anybody.wait()
            begun = clock()
            try:
                self._held = await self._read()
                answer, _ = self._held
                kept_busy = 0.0 if answer.source == "redis" else clock() - begun
                pause = min(max(READ_SECONDS, kept_busy / SHARE), SLOW_SECONDS)
                await self._tell()
            except Exception as error:  # noqa: BLE001  whatever it is, the listeners wait for the next page
                # Nobody who comes now is told of a page that may be long outdated.
                self._held = None
                pause = AGAIN_SECONDS
                if not isinstance(error, LadderError):
                    _log.exception("stream.failed")
            await asyncio.sleep(max(begun + pause - clock(), 0))
            if not self._listeners:
                self._held = None
                self._anybody.clear()

    async def _tell(self) -> None:
        if self._held is None:
            return
        stale = self._held[0].stale
        events = {limit: self._event(limit, *self._held) for limit in {each.limit for each in self._listeners}}
        # One who comes meanwhile is told as they come.
        listeners = list(self._listeners)
        clock = asyncio.get_running_loop().time
        begun, told, due = clock(), 0, AT_ONCE
        for listener in listeners:
            told += listener.offer(events[listener.limit], stale=stale)
            while told >= due:
                await asyncio.sleep(_TURN_SECONDS)
                due = max(told + AT_ONCE, int(len(listeners) * (clock() - begun) / SPREAD_SECONDS))

    def _event(self, limit: int, answer: Answer[Page], cursors: Cursors) -> Event:
        page = answer.value
        rows, total = page.rows[:limit], page.board.total
        last = self._events.get(limit)
        if last is None or (last.total, last.rows) != (total, rows):
            following = cursors.after(msgspec.structs.replace(page, rows=rows))
            last = self._events[limit] = event(rows, total, following)
        return last

    async def _keep(self) -> None:
        """Send heartbeats, and cut off who does not receive what is sent to them."""
        clock = asyncio.get_running_loop().time
        while True:
            await self._anybody.wait()
            now, told = clock(), 0
            for listener in list(self._listeners):
                if now - listener.sending_since > SEND_SECONDS:
                    self._cut(listener)
                elif now >= listener.next_beat:
                    listener.next_beat += self._heartbeat_seconds
                    listener.beat()
                    told += 1
                    if told % AT_ONCE == 0:
                        await asyncio.sleep(_TURN_SECONDS)
            if self._unreachable:
                peers, self._unreachable = self._unreachable, set()
                await asyncio.to_thread(hang_up, peers)
            await asyncio.sleep(SWEEP_SECONDS)

    def _cut(self, listener: Listener) -> None:
        listener.cut()
        self.leave(listener)
        if listener.peer:
            self._unreachable.add(listener.peer)
        metrics.STREAMS_CUT.inc()

    async def _end(self) -> None:
        await self._ending.wait()
        peers = {listener.peer for listener in self._listeners if listener.peer}
        for listener in self._listeners:
            listener.end()
        # The server waits for every connection to be empty, and one whose client does not read never is.
        await asyncio.sleep(FAREWELL_SECONDS)
        await asyncio.to_thread(hang_up, peers)
