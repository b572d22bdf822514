"""
Bodies, addresses and headers of nearly 64 KiB are read, longer ones are refused.

After each request the whole users table and the whole board are as they were.
"""

from __future__ import annotations

import pytest

from .serving import Service
from .shapes import assert_problem, assert_request_id
from .wire import http2_request, received, request

pytestmark = pytest.mark.usefixtures("nothing_is_written")

JSON = ("Content-Type", "application/json")
LIMIT = 64 * 1024
SLACK = 8 * 1024
"""How far from 64 KiB a header block is surely under or over it, whatever counts towards it."""


@pytest.mark.parametrize("chunk", [0, 1_000, 65_537], ids=["whole", "in chunks", "in one chunk"])
@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT])
def test_a_body_of_64_kib_is_read(service: Service, size: int, chunk: int) -> None:
    """Up to the last byte, which is where the rating is."""
    body = b"{" + b" " * (size - 15) + b'"rating":1500}'
    answer = service.raw(request("PUT", "/users/hostile/rating", [JSON], body, chunk=chunk))

    assert len(body) == size
    assert 200 == answer.status


@pytest.mark.parametrize("chunk", [0, 1_000, 1_000_000], ids=["whole", "in chunks", "in one chunk"])
@pytest.mark.parametrize("size", [LIMIT + 1, 2 * LIMIT, 1_000_000])
def test_a_body_over_64_kib_is_too_large(service: Service, size: int, chunk: int) -> None:
    """Also when it does not say how long it is, and when what comes first would be enough."""
    for method, target, body in (
        ("POST", "/users", b'{"username":"intruder"}'),
        ("PUT", "/users/hostile/rating", b'{"rating":1501}'),
    ):
        sent = request(method, target, [JSON], body.ljust(size), chunk=chunk)

        assert_problem(service.raw(sent), "too-large")


def test_a_length_over_64_kib_is_refused_before_it_has_come(service: Service) -> None:
    """Nobody is made to send what will be thrown away."""
    head = request("POST", "/users", [JSON, ("Content-Length", "10000000000"), ("Expect", "100-continue")])

    assert_problem(service.raw(head), "too-large")


@pytest.mark.parametrize("target", [b"/users/%b", b"/users/search?username=%b", b"/leaderboard?cursor=%b"])
def test_a_url_of_nearly_64_kib_is_answered(service: Service, target: bytes) -> None:
    answer = service.raw(request("GET", target % (b"a" * (LIMIT - SLACK))))

    assert answer.status in (200, 400)
    assert_request_id(answer.headers)


@pytest.mark.parametrize("size", [LIMIT + SLACK, 300_000, 2_000_000])
@pytest.mark.parametrize("target", [b"/users/%b", b"/users/search?username=%b", b"/leaderboard?cursor=%b"])
def test_a_url_over_64_kib_is_refused(service: Service, target: bytes, size: int) -> None:
    """Whoever refuses it, it is the client's fault, or the end of the connection."""
    _refused(service, request("GET", target % (b"a" * size)))


def test_headers_of_nearly_64_kib_are_read(service: Service) -> None:
    """In one line or in many."""
    for headers in (
        [("X-Long", b"a" * (LIMIT - SLACK))],
        [(f"X-{number}", b"a" * 1000) for number in range(56)],
    ):
        assert 200 == service.raw(request("GET", "/users/hostile", headers)).status


@pytest.mark.parametrize("size", [LIMIT + SLACK, 300_000, 2_000_000])
@pytest.mark.parametrize("lines", [1, 60, 5000], ids=["one line", "60 lines", "5000 lines"])
def test_headers_over_64_kib_are_refused(service: Service, size: int, lines: int) -> None:
    """In one line, in a few long ones, or in very many; a write behind them is not carried out."""
    headers = [(f"X-{number}", b"a" * (size // lines)) for number in range(lines)]
    _refused(service, request("GET", "/users/hostile", headers))
    _refused(service, request("PUT", "/users/hostile/rating", [JSON, *headers], b'{"rating":1501}'))


@pytest.mark.parametrize("size", [LIMIT + SLACK, 2_000_000])
@pytest.mark.parametrize("lines", [1, 30])
def test_headers_over_64_kib_are_refused_in_http_2_too(service: Service, size: int, lines: int) -> None:
    """Nobody needs to speak it, but a limit must hold for whoever is spoken to in it."""
    headers = [(b"x-%d" % number, b"a" * (size // lines)) for number in range(lines)]
    answer = received(service.settings.port, http2_request(b"/health/live", headers))

    assert b'{"status":"live"}' not in answer
    assert 200 == service.get("/health/live").status_code


def _refused(service: Service, sent: bytes) -> None:
    answer = service.raw(sent)

    assert answer.status in (0, 400, 413, 414, 431)
    assert 200 == service.get("/health/live").status_code
