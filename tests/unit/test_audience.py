"""Listeners of the leaderboard's top: who is sent what, and how often the board is read for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service import tasks
from service.api import audience as module
from service.api.audience import HEARTBEAT, Audience, Listener, event
from service.errors import Overloaded, Unavailable
from service.model import Board, Page, Row, UserId
from service.ranking.answers import Answer
from service.ranking.cursor import Cursors

ROWS = [Row(place, place, UserId(f"u{place}"), f"user{place}", 2000 - place) for place in range(1, 101)]
CURSORS = Cursors(b"k" * 16)


class Reads:
    """The board, and how often it was read; None if nobody can answer."""

    def __init__(self) -> None:
        self.rows: list[Row] | None = ROWS
        self.stale = False
        self.count = 0

    async def __call__(self) -> tuple[Answer[Page], Cursors]:
        self.count += 1
        if self.rows is None:
            raise Unavailable
        return Answer(Page(Board(1000), self.rows), "redis", stale=self.stale), CURSORS

    def change(self) -> str:
        """Give the first user another rating; returns the name of it on the wire."""
        assert self.rows
        self.rows = [Row(1, 1, UserId("u1"), "user1", self.rows[0].rating + 1), *self.rows[1:]]
        return f'"rating":{self.rows[0].rating}}}'


class Room:
    """An audience that runs, and its board."""

    def __init__(self, **options: Any) -> None:
        self.reads = Reads()
        self.ending = asyncio.Event()
        self.audience = Audience(self.reads, **{"most": 10, "heartbeat_seconds": 60, "ending": self.ending, **options})


@pytest.fixture
async def room(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    """It reads a hundred times a second and looks after its listeners as often."""
    for name in ("READ_SECONDS", "APART_SECONDS", "AGAIN_SECONDS", "SWEEP_SECONDS"):
        monkeypatch.setattr(module, name, 0.01)
    running = Room()
    work = asyncio.create_task(running.audience.run())
    yield running
    await tasks.end([work])


async def next_of(listener: Listener) -> bytes:
    """What is sent to a listener next."""
    async with asyncio.timeout(5):
        return await listener.next()


async def test_a_page_is_encoded_once_and_everybody_gets_the_same_bytes(room: Room) -> None:
    """However many they are; and shorter pages are the beginning of the longest, with cursors of their own."""
    listeners = [room.audience.join(limit, None, None) for limit in (3, 3, 3, 5)]
    told = [await next_of(listener) for listener in listeners]

    assert told[0] is told[1] is told[2]
    following = CURSORS.after(Page(Board(1000), ROWS[:5]))
    assert event(ROWS[:5], 1000, following).text == told[3]
    assert told[0] is room.audience.join(3, None, None).take()


async def test_nobody_is_sent_what_they_have(room: Room) -> None:
    """Nor is anything sent to anybody while the page is the same."""
    first = room.audience.join(3, None, None)
    page = await next_of(first)
    again = room.audience.join(3, page.split(b"\n")[0].removeprefix(b"id: ").decode(), None)
    reads = room.reads.count
    while room.reads.count < reads + 3:
        await asyncio.sleep(0.01)

    assert (b"", b"") == (first.take(), again.take())
    rating = room.reads.change()
    assert rating.encode() in await next_of(again)


async def test_a_newer_page_takes_the_place_of_one_that_waits() -> None:
    """There is never more than one; and one that has become the listener's own again is not sent."""
    pages = [event(ROWS[:1], total, None) for total in (1, 2)]
    listener = Listener(1, None, None)

    assert [True, True] == [listener.offer(page, stale=False) for page in pages]
    assert pages[1].text == listener.take()
    listener.offer(pages[0], stale=False)
    listener.offer(pages[1], stale=False)
    assert b"" == listener.take()


async def test_events_of_a_listener_are_apart(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the first two, whenever the listener comes; and the second is the newest there is by then."""
    monkeypatch.setattr(module, "APART_SECONDS", 0.1)
    await next_of(room.audience.join(3, None, None))
    listener, clock = room.audience.join(3, None, None), asyncio.get_running_loop().time
    for _ in range(3):
        assert await next_of(listener)
        sent_at, reads = clock(), room.reads.count
        room.reads.change()
        while room.reads.count < reads + 2:
            await asyncio.sleep(0.01)
        rating = room.reads.change()
        assert rating.encode() in await next_of(listener)
        assert clock() - sent_at > 0.09
        room.reads.change()


async def test_a_stale_page_is_for_who_has_none(room: Room) -> None:
    """It may be from before what the others have."""
    has_one, waits = room.audience.join(3, None, None), Listener(3, None, None)
    await next_of(has_one)
    waits.offer(event(ROWS[:2], 7, None), stale=False)
    room.reads.stale = True
    rating = room.reads.change()
    reads = room.reads.count
    while room.reads.count < reads + 3:
        await asyncio.sleep(0.01)

    assert b"" == has_one.take()
    assert not waits.offer(event(ROWS[:1], 7, None), stale=True)
    assert rating.encode() in room.audience.join(3, None, None).take()
    room.reads.stale = False
    assert rating.encode() in await next_of(has_one)


async def test_while_nobody_can_answer_a_newcomer_waits(room: Room) -> None:
    """And is not told of the page from before."""
    listener = room.audience.join(3, None, None)
    page = await next_of(listener)
    rows, room.reads.rows = room.reads.rows, None
    reads = room.reads.count
    while room.reads.count < reads + 2:
        await asyncio.sleep(0.01)
    newcomer = room.audience.join(3, None, None)
    assert b"" == newcomer.take()
    room.reads.rows = rows

    assert page == await next_of(newcomer)
    assert b"" == listener.take()


async def test_nothing_is_read_for_nobody(room: Room) -> None:
    """And listeners who come and go do not have it read more often."""
    await asyncio.sleep(0.03)
    assert 0 == room.reads.count
    for _ in range(100):
        room.audience.leave(room.audience.join(3, None, None))
        await asyncio.sleep(0)
    assert room.reads.count <= 5
    await asyncio.sleep(0.03)
    reads = room.reads.count
    await asyncio.sleep(0.03)
    assert reads == room.reads.count


async def test_there_may_be_so_many_and_no_more() -> None:
    """Until one leaves."""
    audience = Room(most=2).audience
    first, _ = audience.join(1, None, None), audience.join(1, None, None)
    with pytest.raises(Overloaded):
        audience.join(1, None, None)
    audience.leave(first)
    audience.join(1, None, None)

    assert 2 == len(audience)


async def test_heartbeats_come_whether_or_not_anything_changes(room: Room) -> None:
    """And one that comes together with a page stands before it."""
    room.audience._heartbeat_seconds = 0.02
    listener = room.audience.join(3, None, None)
    page = await next_of(listener)

    assert HEARTBEAT == await next_of(listener)
    listener._seen = None
    listener.offer(event(ROWS[:1], 1, None), stale=False)
    listener.beat()
    assert listener.take().startswith(HEARTBEAT + b"id: ")
    assert not page.startswith(HEARTBEAT)


async def test_who_does_not_take_what_is_sent_is_cut_off(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while; and who does is not."""
    monkeypatch.setattr(module, "SEND_SECONDS", 0.03)
    clock = asyncio.get_running_loop().time

    async def listen(*, hangs: bool) -> bool:
        listener = room.audience.join(3, None, None)
        listener.sending_since = clock() if hangs else listener.sending_since
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            return listener.was_cut
        return False

    outcomes = await asyncio.gather(*(asyncio.create_task(listen(hangs=hangs)) for hangs in (True, False)))

    assert [True, False] == outcomes
    assert 1 == len(room.audience)


async def test_at_the_end_all_streams_end(room: Room) -> None:
    """Also of those who come a moment later."""
    listener = room.audience.join(3, None, None)
    await next_of(listener)
    room.ending.set()
    await next_of(listener)

    assert listener.is_over
    assert room.audience.join(3, None, None).is_over
