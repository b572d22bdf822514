"""
What an attacker sends: below HTTP, in its gaps, in every address, header and body.

Each is refused as documented or ends the connection; none is a defect, none changes a user or the board, and
meanwhile somebody else is answered in time. Values of fields and parameters one by one are in `test_bad_input.py`,
forged chains of proxies that are trusted in `test_rate_limit.py`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from tests.load.memory import rss_kib
from tests.ranking.equality import ledger_board, mirror_board

from . import hostile_wire
from .pictures import Pictures, pictures_of
from .serving import Service, serving, wait_until
from .shapes import SLUGS, assert_problem, assert_request_id
from .wire import Reply, exchange, exchanges, replies, request

JSON = ("Content-Type", "application/json")
IN_TIME = 3.0
"""Seconds that anybody else may wait for an answer at most, on a busy machine."""
SHORT = 1
"""`IDLE_SECONDS` of the service."""


@pytest.fixture(scope="module")
def service(fresh_database: str, stores) -> Iterator[Service]:
    """Two workers that believe no proxy, close idle connections soon, and limit nobody."""
    with redis.Redis.from_url(stores.redis_url) as client:
        try:
            env = {"IDLE_SECONDS": str(SHORT), "LOG_LEVEL": "info"}
            with serving(fresh_database, stores.redis_url, workers=2, env=env) as running:
                wait_until(running.is_mirrored)
                running.created("Victim", id="victim", rating=1500)
                running.created("Bystander", id="bystander", rating=1600)
                yield running
        finally:
            client.flushdb()


@pytest.fixture(scope="module")
def pictures(service: Service) -> Iterator[Pictures]:
    """To look at both stores with."""
    with pictures_of(service.settings) as made:
        yield made


@pytest.fixture(autouse=True)
def _unharmed(service: Service, pictures: Pictures) -> Iterator[None]:
    """Nothing is changed, nothing is a defect, nobody has died, and somebody else was served all the while."""
    workers = service.workers()
    with somebody_else(service) as seconds:
        yield

    before, after = pictures.next()
    if before != after:
        # So that the test to blame is the only one that fails, and the next one is not too late to change it.
        service.put("victim", 1500)
        pictures.next()

    assert before == after
    assert max(seconds) < IN_TIME
    assert [] == service.defects()
    assert workers == service.workers()


@contextlib.contextmanager
def somebody_else(service: Service) -> Iterator[list[float]]:
    """Another client that asks all the while; how many seconds each answer took, at least one."""
    taken: list[float] = []
    over = threading.Event()

    def ask() -> None:
        while not taken or not over.is_set():
            begun = time.monotonic()
            # A connection of its own each time: one that is open already proves nothing about the door.
            found = exchange(service.settings.port, request("GET", "/users/victim"), seconds=30)
            taken.append(time.monotonic() - begun if found.status == 200 else 99)
            over.wait(0.05)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()


def refused(answers: list[Reply]) -> None:
    """The connection was closed at once, or the request refused as documented, by us or by the server itself."""
    if answers:
        assert answers[0].status in {*SLUGS.values(), 411, 414, 431, 501, 505} - {500, 503}
        if answers[0].body:
            assert "application/problem+json" == answers[0].headers["content-type"]
            assert_request_id(answers[0].headers)


# Where one request ends and the next begins


@pytest.mark.parametrize("value", hostile_wire.SMUGGLED.values(), ids=hostile_wire.SMUGGLED)
def test_a_request_in_another_is_never_carried_out(service: Service, value: bytes) -> None:
    """What a proxy may have taken for a body changes nobody, and the one around it is refused."""
    answers = exchanges(service.settings.port, value.replace(b"<SMUGGLED>", hostile_wire.SMUGGLED_WRITE))

    refused(answers)


@pytest.mark.parametrize("value", hostile_wire.ODD_FRAMES.values(), ids=hostile_wire.ODD_FRAMES)
def test_what_is_odd_but_allowed_is_one_request(service: Service, value: bytes) -> None:
    """Answered once, and what stands behind it is not lost and not doubled."""
    answers = exchanges(service.settings.port, value + request("GET", "/users/bystander"))

    assert answers[0].status in (200, 400)
    assert [200] * len(answers[1:]) == [answer.status for answer in answers[1:]]
    assert len(answers) <= 2
    assert len(answers) == 1 or "bystander" == answers[1].json()["id"]


@pytest.mark.parametrize("value", hostile_wire.BROKEN_HEADS.values(), ids=hostile_wire.BROKEN_HEADS)
def test_a_broken_head_is_refused(service: Service, value: bytes) -> None:
    """By the end of the connection, or by a refusal with nothing of ours in it."""
    answers = exchanges(service.settings.port, value)

    refused(answers)


@pytest.mark.parametrize("value", hostile_wire.NO_TARGETS.values(), ids=hostile_wire.NO_TARGETS)
def test_an_address_that_is_none_leads_nowhere(service: Service, value: bytes) -> None:
    """Neither for a reader nor for a writer; least of all to a file or to another host."""
    for sent in (request("GET", value), request("PUT", value + b"/rating", [JSON], b'{"rating":1501}')):
        answers = exchanges(service.settings.port, sent)

        refused(answers)


# Who is asking, and whom


@pytest.mark.parametrize("value", hostile_wire.CHAINS.values(), ids=hostile_wire.CHAINS)
def test_what_a_client_says_about_itself_is_passed_over(service: Service, value: bytes) -> None:
    """No proxy is trusted here: the answer is that of a request without the header."""
    for name in hostile_wire.FORWARDING:
        answer = service.raw(request("GET", "/users/victim", [(name, value), (name, b"198.51.100.77")]))

        assert 200 == answer.status
        assert b"198.51.100" not in answer.body
        assert "198.51.100" not in str(answer.headers)


@pytest.mark.parametrize("value", hostile_wire.HOSTS.values(), ids=hostile_wire.HOSTS)
def test_the_host_does_not_matter(service: Service, value: bytes) -> None:
    """It is never repeated and never followed: not in the body, not in a header, not in Location."""
    sent = b"GET /users/victim HTTP/1.1\r\n%bConnection: close\r\n\r\n" % value
    for answer in exchanges(service.settings.port, sent):
        assert answer.status in (200, 400)
        assert b"evil" not in answer.body
        assert "evil" not in str(answer.headers)


@pytest.mark.parametrize(
    "name", ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method", "X-Original-URL", "X-Rewrite-URL"]
)
def test_no_header_makes_a_request_another(service: Service, name: str) -> None:
    """A reader stays a reader, a route stays that route."""
    for value in ("PUT", "DELETE", "/users/bystander/rating"):
        answer = service.raw(request("GET", "/users/victim", [(name, value), JSON], b'{"rating":1501}'))

        assert (200, "victim") == (answer.status, answer.json()["id"])


@pytest.mark.parametrize("headers", hostile_wire.DOUBLED.values(), ids=hostile_wire.DOUBLED)
def test_a_header_given_twice_is_not_taken_for_the_better_one(
    service: Service, headers: list[tuple[str, bytes]]
) -> None:
    """A write with two of them is refused, whichever comes first."""
    for ordered in (headers, headers[::-1]):
        refused([service.raw(request("PUT", "/users/victim/rating", ordered, b'{"rating":1501}'))])


# Values


@pytest.mark.parametrize("value", hostile_wire.INJECTIONS.values(), ids=hostile_wire.INJECTIONS)
def test_metacharacters_are_characters(service: Service, value: bytes) -> None:
    """SQL, Lua, the protocols of both stores: in every field, id, parameter and header, nothing but refused or unknown."""
    quoted = b"".join(b"%%%02X" % byte for byte in value)
    escaped = b"".join(b"\\u%04x" % byte for byte in value)
    bodies = [b'{"username":"%b"}', b'{"username":"Mallory","id":"%b"}', b'{"username":"Mallory","rating":"%b"}',
              b'{"username":"Mallory","%b":1}']  # fmt: skip
    for body in bodies:
        assert 400 == service.raw(request("POST", "/users", [JSON], body % escaped)).status
    for body in (b'{"rating":"%b"}' % escaped, b'{"%b":1501}' % escaped):
        assert 400 == service.raw(request("PUT", "/users/victim/rating", [JSON], body)).status
    for target in (b"/leaderboard?limit=%b", b"/leaderboard?offset=%b", b"/leaderboard?cursor=%b", b"/leaderboard?%b=1",
                   b"/users/search?username=vic&limit=%b"):  # fmt: skip
        assert 400 == service.raw(request("GET", target % quoted)).status
    assert [] == service.raw(request("GET", b"/users/search?username=" + quoted)).json()["items"]
    assert service.raw(request("GET", b"/users/" + quoted)).status in (400, 404)
    assert service.raw(request("PUT", b"/users/" + quoted + b"/rating", [JSON], b'{"rating":1501}')).status in (
        400,
        404,
    )
    # What stands in a header at the wire can hold no end of line.
    line = value.translate(None, bytes(range(32)))
    for name in ("X-Consistency-Token", "X-Request-Id", "If-None-Match", "Origin", "Authorization", "User-Agent"):
        assert service.raw(request("GET", "/users/victim", [(name, line)])).status in (200, 400)
    refused([service.raw(request("PUT", "/users/victim/rating", [JSON, ("If-Match", line)], b'{"rating":1501}'))])


@pytest.mark.parametrize(
    "coding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "x-gzip", "GZIP", "nonsense", "gzip, gzip"]
)
def test_a_bomb_is_not_unpacked(service: Service, coding: str) -> None:
    """64 KiB that would be 64 MiB: refused by their coding, without a byte of memory for what is inside."""
    before = rss_kib(service)
    for _ in range(5):
        answer = service.raw(
            request("PUT", "/users/victim/rating", [JSON, ("Content-Encoding", coding)], hostile_wire.BOMB)
        )
        assert_problem(answer, "unsupported-media-type")

    assert rss_kib(service) - before < 16 * 1024


# Without end


def drip(service: Service, sent: bytes, more: bytes, *, seconds: float) -> tuple[int, bytes]:
    """Send, and then more of it until it is answered or cut off; how many bytes were taken, and what came back."""
    taken, answer = 0, b""
    with socket.create_connection(("127.0.0.1", service.settings.port), timeout=seconds) as connection:
        connection.sendall(sent)
        deadline = time.monotonic() + seconds
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < deadline:
                connection.settimeout(0.2)
                with contextlib.suppress(TimeoutError):
                    connection.sendall(more)
                    taken += len(more)
                connection.settimeout(0.001)
                with contextlib.suppress(TimeoutError):
                    if not (part := connection.recv(65536)):
                        return taken, answer
                    answer += part
        assert time.monotonic() < deadline, "it was neither answered nor cut off"
    return taken, answer


ENDLESS = {
    "chunks": (request("POST", "/users", [JSON, ("Transfer-Encoding", "chunked")], last=False), b"1000\r\n" + b" " * 4096 + b"\r\n"),
    "chunks for nobody": (request("POST", "/nowhere", [JSON, ("Transfer-Encoding", "chunked")], last=False), b"1000\r\n" + b" " * 4096 + b"\r\n"),
    "chunks for a reader": (request("GET", "/users/victim", [("Transfer-Encoding", "chunked")], last=False), b"1000\r\n" + b" " * 4096 + b"\r\n"),
    "a length": (request("PUT", "/users/victim/rating", [JSON, ("Content-Length", "100000000000")], last=False), b" " * 4096),
    "a length for nobody": (request("PUT", "/nowhere", [JSON, ("Content-Length", "100000000000")], last=False), b" " * 4096),
    "a chunk's extension": (request("POST", "/users", [JSON, ("Transfer-Encoding", "chunked")], last=False) + b"1;", b"x" * 4096),
    "a chunk's length": (request("POST", "/users", [JSON, ("Transfer-Encoding", "chunked")], last=False), b"0" * 4096),
    "trailers": (request("POST", "/users", [JSON, ("Transfer-Encoding", "chunked")], last=False) + b"2\r\n{}\r\n0\r\n", b"X-A: b\r\n" * 500),
    "headers": (b"GET /users/victim HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n" * 500),
    "a header": (b"GET /users/victim HTTP/1.1\r\nHost: x\r\nX-A: ", b"a" * 4096),
    "an address": (b"GET /users/", b"a" * 4096),
    "a method": (b"G", b"E" * 4096),
    "empty lines": (b"\r\n", b"\r\n" * 2048),
}  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "more"),
    [
        # Zeros before a chunk's length are allowed in any number: those end with the time for a body.
        pytest.param(*pair, id=name, marks=pytest.mark.slow if name == "a chunk's length" else ())
        for name, pair in ENDLESS.items()
    ],
)
def test_what_never_ends_is_cut_off(service: Service, sent: bytes, more: bytes) -> None:
    """Soon, with a refusal if there is whom to refuse, and kept nowhere meanwhile."""
    before = rss_kib(service)
    _, answer = drip(service, sent, more, seconds=25)

    assert rss_kib(service) - before < 32 * 1024
    # A route that needs no body may have been answered; what is behind it is nobody's request.
    if not sent.startswith(b"GET /users/victim HTTP/1.1\r\nHost: ladder"):
        refused(replies(answer, "POST"))


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /users/victim HTTP/1.1\r\nHost: x\r\nX-"])
def test_a_head_that_drips_is_cut_off_after_a_while(service: Service, sent: bytes) -> None:
    """The time is that of the whole head, however steadily it drips."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", service.settings.port), timeout=0.2) as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - begun < 20:
                if sent.startswith(b"GET"):
                    connection.sendall(b"a")
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(65536):
                        break

    assert SHORT / 2 < time.monotonic() - begun < 15


def test_five_hundred_slow_clients_keep_nobody_out(service: Service) -> None:
    """Heads that drip, bodies that do not come, answers that nobody reads: more than are served at a time."""
    pages = request("GET", "/leaderboard?limit=1000", last=False) * 50
    unfinished = request("POST", "/users", [JSON, ("Content-Length", "100")]) + b'{"user'
    with contextlib.ExitStack() as held, somebody_else(service) as seconds:
        for number in range(500):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", service.settings.port)))
            connection.sendall((b"GET / HTTP/1.1\r\nX-", unfinished, pages)[number % 3])
        wait_until(lambda: len(seconds) >= 20)

    assert max(seconds) < IN_TIME


@pytest.mark.parametrize("target", ["/metrics", "/health", "/health/ready"])
def test_a_crowd_at_what_is_not_limited_keeps_nobody_out(service: Service, target: str) -> None:
    """Three hundred who ask at the same time cost hardly more than one; whatever they are told, others are served."""
    with contextlib.ExitStack() as held:
        crowd = [
            held.enter_context(socket.create_connection(("127.0.0.1", service.settings.port), timeout=30))
            for _ in range(300)
        ]
        for connection in crowd:
            connection.sendall(request("GET", target))
        for connection in crowd:
            assert connection.recv(9) == b"HTTP/1.1 "


def test_a_flood_of_connections_that_are_cut_keeps_nobody_out(service: Service) -> None:
    """Reset in the middle of everything: head, body, answer."""
    parts = [b"", b"GET /users/vic", request("PUT", "/users/victim/rating", [JSON, ("Content-Length", "9")]) + b"{",
             request("GET", "/leaderboard?limit=1000")]  # fmt: skip
    for number in range(1000):
        with socket.create_connection(("127.0.0.1", service.settings.port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(parts[number % 4])


def test_the_stores_are_equal_in_the_end(service: Service) -> None:
    """What a random order of all attacks has left."""
    board, users, size = mirror_board(service.settings)

    assert ledger_board(service.settings) == (board, users)
    assert size == len(board) == 2
