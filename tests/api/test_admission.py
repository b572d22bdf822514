"""How much a process takes on: requests at a time, and time for a body."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from service.api import admission
from service.api.admission import Admission
from service.errors import Overloaded, TooSlow

from .serving import Service, serving, wait_until
from .shapes import assert_problem
from .wire import exchange, request

JSON = ("Content-Type", "application/json")


class Held:
    """An application whose answers are held back, and what is sent through it."""

    def __init__(self, **limits: Any) -> None:
        self.released = asyncio.Event()
        self.bodies: list[Any] = []
        self.door = Admission(self.answer, **{"most": 2, **limits})

    async def answer(self, _: Any, receive: Any, send: Any) -> None:
        self.bodies.append(await receive())
        await self.released.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def ask(self, receive: Any = None, path: str = "/leaderboard", method: str = "GET") -> int:
        """The status of an answer."""
        statuses: list[int] = []

        async def send(message: Any) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        async def nothing() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {"type": "http", "path": path, "method": method, "headers": [], "state": {}}
        await self.door(scope, receive or nothing, send)
        return statuses[0]


async def test_beyond_the_limit_a_request_is_refused_at_once() -> None:
    """And those that were admitted are answered; then there is room again."""
    held = Held()
    admitted = [asyncio.create_task(held.ask()) for _ in range(2)]
    await asyncio.sleep(0)

    assert held.door.in_flight == 2
    assert 503 == await held.ask()
    held.released.set()
    assert [200, 200] == await asyncio.gather(*admitted)
    assert 200 == await held.ask()
    assert 0 == held.door.in_flight


@pytest.mark.parametrize("headers", [[], [(b"transfer-encoding", b"chunked")]])
async def test_a_turn_is_given_back_before_a_long_answer_ends(headers: list[tuple[bytes, bytes]]) -> None:
    """Once, with a body in chunks too: whoever opens streams so would else have every turn for hours."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def endless(scope: Any, receive: Any, _: Any) -> None:
        await receive()
        scope["state"]["end_turn"]()
        begun.set()
        await over.wait()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Any) -> None: ...

    door = Admission(endless, most=1)
    scope = {"type": "http", "path": "/leaderboard/stream", "method": "GET", "headers": headers, "state": {}}
    stream = asyncio.create_task(door(scope, receive, send))
    await begun.wait()
    assert 0 == door.in_flight
    over.set()
    await stream
    assert 0 == door.in_flight


async def test_whoever_watches_is_always_admitted() -> None:
    """When it is busiest, too."""
    held = Held(most=1)
    busy = asyncio.create_task(held.ask())
    await asyncio.sleep(0)
    probe = asyncio.create_task(held.ask(path="/health/ready"))
    held.released.set()

    assert {200} == set(await asyncio.gather(busy, probe))


async def test_a_request_that_is_given_up_makes_room() -> None:
    """A client that goes away takes no place."""
    held = Held(most=1)
    given_up = asyncio.create_task(held.ask())
    await asyncio.sleep(0)
    given_up.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await given_up

    assert 0 == held.door.in_flight


async def test_a_body_that_never_ends_is_not_waited_for() -> None:
    """However steadily it drips: the time is that of the whole body."""
    held = Held(body_seconds=0.05)

    async def dripping() -> Any:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def read_all(_: Any, receive: Any, __: Any) -> None:
        while (await receive()).get("more_body"):
            pass

    held.door._app = read_all
    with pytest.raises(TooSlow):
        await held.ask(dripping, method="PUT")
    assert (0, 0) == (held.door.in_flight, held.door.arriving)


async def test_a_client_may_stay_as_long_as_it_likes() -> None:
    """Behind the end of the body there is only its leaving, and a stream waits for that."""
    held = Held(body_seconds=0.02)
    messages = iter([{"type": "http.request", "more_body": False}, {"type": "http.disconnect"}])
    late = asyncio.Event()

    async def receive() -> Any:
        message: Any = next(messages)
        if message["type"] == "http.disconnect":
            await late.wait()
        return message

    async def streaming(_: Any, receive: Any, send: Any) -> None:
        await receive()
        asyncio.get_running_loop().call_later(0.1, late.set)
        assert "http.disconnect" == (await receive())["type"]
        await send({"type": "http.response.start", "status": 200, "headers": []})

    held.door._app = streaming

    assert 200 == await held.ask(receive, method="POST")


# Turns


async def turned(condition: Any) -> None:
    """Let the others run until it is so."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_a_burst_waits_for_its_turn() -> None:
    """In the order in which it came, and nobody more than are worked on at a time."""
    held = Held(most=10, at_once=2)
    waiting = [asyncio.create_task(held.ask()) for _ in range(10)]
    await turned(lambda: held.door.in_flight == 10)

    assert 2 == len(held.bodies)
    assert 503 == await held.ask()
    held.released.set()
    assert [200] * 10 == await asyncio.gather(*waiting)
    assert 0 == held.door.in_flight


async def test_whoever_waits_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its place is free."""
    monkeypatch.setattr(admission, "WAIT_SECONDS", 0.02)
    held = Held(most=10, at_once=1)
    served = asyncio.create_task(held.ask())
    await asyncio.sleep(0)

    assert [503] * 5 == await asyncio.gather(*(held.ask() for _ in range(5)))
    assert 1 == held.door.in_flight
    held.released.set()
    assert 200 == await served


async def test_in_a_rush_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """When requests have been late for long, and until nobody has been refused for a while."""
    for name, seconds in (("LATE_SECONDS", 0.0), ("BURST_SECONDS", 0.01), ("CALM_SECONDS", 0.05)):
        monkeypatch.setattr(admission, name, seconds)
    held = Held(most=1000, at_once=1)
    tasks = [asyncio.create_task(held.ask())]
    while not any(task.done() for task in tasks):
        tasks.append(asyncio.create_task(held.ask()))
        await asyncio.sleep(0.002)

    assert {503} == {task.result() for task in tasks if task.done()}
    in_flight = held.door.in_flight
    assert 503 == await held.ask()
    assert in_flight == held.door.in_flight
    await asyncio.sleep(0.06)
    late = asyncio.create_task(held.ask())
    await turned(lambda: held.door.in_flight == in_flight + 1)
    held.released.set()
    assert 200 == await late
    assert 200 == max(await asyncio.gather(*(task for task in tasks if not task.done())), default=200)


@pytest.mark.parametrize("moment", ["waiting", "given"])
async def test_a_turn_of_one_who_left_is_another_s(moment: str) -> None:
    """Whether it waits still, or got its turn in the moment in which it goes."""
    held = Held(most=10, at_once=1)
    first, second, third = (asyncio.create_task(held.ask()) for _ in range(3))
    await turned(lambda: held.door.in_flight == 3)
    if moment == "given":
        # As if there had been another one, which has just ended.
        held.door._end_turn()
        held.door._working += 1
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert second.cancelled()
    held.released.set()

    assert {200} == set(await asyncio.gather(first, third))
    assert 0 == held.door.in_flight


async def test_a_body_on_its_way_takes_nobody_s_turn() -> None:
    """Only when it has come is there anything to do; and there may be only so many of them."""
    held = Held(most=2)
    come = asyncio.Event()

    async def receive() -> Any:
        await come.wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    writes = [asyncio.create_task(held.ask(receive, method="POST")) for _ in range(2)]
    await turned(lambda: held.door.arriving == 2)
    reads = [asyncio.create_task(held.ask()) for _ in range(2)]
    await turned(lambda: held.door.in_flight == 2)

    with pytest.raises(Overloaded):
        await held.ask(receive, method="POST")
    come.set()
    for write in writes:
        with pytest.raises(Overloaded):
            await write
    held.released.set()
    assert [200, 200] == await asyncio.gather(*reads)
    assert 200 == await held.ask(receive, method="POST")
    assert (0, 0) == (held.door.in_flight, held.door.arriving)


@pytest.fixture
def small(service: Service) -> Iterator[Service]:
    """A service that admits ten requests at a time, over the same stores."""
    with serving(service.settings.database_url, service.settings.redis_url, env={"MAX_IN_FLIGHT": "10"}) as running:
        wait_until(running.is_mirrored)
        yield running


UNFINISHED = request("POST", "/users", [JSON, ("Content-Length", "100")]) + b'{"user'


def test_a_rush_is_refused_with_503_and_leaves_no_trace(small: Service) -> None:
    """Ten wait for a table that is locked, the others learn at once that they should come back; then all is as before."""
    small.created("rushed", id="rushed")
    change = request("PUT", "/users/rushed/rating", [JSON], b'{"rating":1500}')
    with contextlib.ExitStack() as held:
        lock = held.enter_context(psycopg.connect(small.settings.database_url))
        lock.execute("LOCK TABLE users")

        def ask() -> httpx.Response:
            # One more that waits: in case one of those before was still on its way, or gave up.
            connection = held.enter_context(socket.create_connection(("127.0.0.1", small.settings.port)))
            connection.sendall(change)
            return small.get("/leaderboard")

        wait_until(lambda: ask().status_code == 503)
        begun = time.monotonic()
        answers = [ask() for _ in range(50)]
        seconds = time.monotonic() - begun
        assert 200 == small.get("/health/live").status_code

    refused = [answer for answer in answers if answer.status_code == 503]
    assert_problem(refused[0], "unavailable")
    assert "1" == refused[0].headers["retry-after"]
    assert len(refused) >= 40
    assert seconds < 5
    # A rush must not fill the log too: one line a second tells of it.
    assert 1 <= sum(line["event"] == "requests.shed" for line in small.logged()) <= 25
    wait_until(lambda: small.get("/leaderboard").status_code == 200)


def test_bodies_that_do_not_come_take_nobody_s_place(small: Service) -> None:
    """Ten times as many as are served at a time."""
    with contextlib.ExitStack() as held:
        for _ in range(100):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", small.settings.port)))
            connection.sendall(UNFINISHED)

        assert {200} == {small.get("/leaderboard").status_code for _ in range(50)}


def test_a_body_that_stops_is_answered_408(service: Service) -> None:
    """After ten seconds, and the connection is closed; others are served meanwhile."""
    begun = time.monotonic()
    answer = exchange(service.settings.port, UNFINISHED, seconds=20)
    seconds = time.monotonic() - begun

    assert_problem(answer, "too-slow")
    assert 9 < seconds < 14


def test_who_is_still_sending_is_refused_when_done(service: Service) -> None:
    """A connection that is closed while its client sends would lose the answer on its way."""
    body = b" " * (2**20 + 1)
    head, half = request("PUT", "/ratings", [("Content-Type", "application/json")], body), len(body) // 2
    with socket.create_connection(("127.0.0.1", service.settings.port), timeout=5) as line:
        line.sendall(head[:-half])
        assert ([], [], []) == select.select([line], [], [], 0.2)
        line.sendall(head[-half:])
        answer = b"".join(iter(lambda: line.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_refusal_waits_for_no_body_that_does_not_come(service: Service) -> None:
    """A second, then it is sent all the same."""
    begun = time.monotonic()
    reply = service.raw(request("PUT", "/ratings", [("Content-Type", "application/json")], b" " * 2**21)[: 2**20])

    assert 413 == reply.status
    assert time.monotonic() - begun < 3
