"""
Every field and every parameter of every route against hostile values, one request each.

After each the whole users table and the whole board are as they were, and at the end the service has logged no defect.
"""

from __future__ import annotations

import gzip
import socket
import zlib
from collections.abc import Callable

import pytest

from . import hostile
from .serving import Service, wait_until
from .shapes import assert_problem
from .wire import exchange, exchanges, request

JSON = ("Content-Type", "application/json")
pytestmark = pytest.mark.usefixtures("nothing_is_written")


def cases(values: dict[str, bytes]) -> pytest.MarkDecorator:
    """One test for each value, called by its name."""
    return pytest.mark.parametrize("value", values.values(), ids=values)


# Fields of bodies


@cases(hostile.NO_NUMBERS | hostile.NO_RATINGS)
@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/users", b'{"username":"intruder","rating":%b}'),
        ("POST", "/users", b'{"rating":%b,"username":"intruder"}'),
        ("PUT", "/users/hostile/rating", b'{"rating":%b}'),
    ],
    ids=["POST", "POST in another order", "PUT"],
)
def test_a_rating_that_is_none_is_refused(
    service: Service, method: str, target: str, body: bytes, value: bytes
) -> None:
    """A whole JSON number from 100 to 5000 and nothing else: never coerced, never clamped."""
    assert_problem(service.raw(request(method, target, [JSON], body % value)), "validation", "rating")


@cases(
    hostile.NO_STRINGS
    | {f"string: {name}": b'"%b"' % value for name, value in hostile.NO_USERNAMES.items()}
)  # fmt: skip
def test_a_username_that_is_none_is_refused(service: Service, value: bytes) -> None:
    answer = service.raw(request("POST", "/users", [JSON], b'{"username":%b,"rating":1500}' % value))

    assert_problem(answer, "validation", "username")


@cases(hostile.NO_STRINGS | {f"string: {name}": b'"%b"' % value for name, value in hostile.NO_IDS.items()})
def test_an_id_that_is_none_is_refused(service: Service, value: bytes) -> None:
    answer = service.raw(request("POST", "/users", [JSON], b'{"username":"intruder","id":%b}' % value))

    assert_problem(answer, "validation", "id")


@cases(hostile.NO_JSON)
@pytest.mark.parametrize("field", [b"username", b"rating", b"id", b"colour"])
def test_a_value_that_is_no_json_is_refused(service: Service, field: bytes, value: bytes) -> None:
    """As the value of any field, the unknown one too."""
    known = b"" if field == b"username" else b'"username":"intruder",'
    creation = service.raw(request("POST", "/users", [JSON], b'{%b"%b":%b}' % (known, field, value)))
    change = service.raw(request("PUT", "/users/hostile/rating", [JSON], b'{"rating":%b}' % value))

    assert_problem(creation, "validation")
    assert_problem(change, "validation")


@cases(hostile.NO_FIELDS)
def test_an_unknown_field_is_refused(service: Service, value: bytes) -> None:
    """Before the known ones and behind them."""
    for method, target, known in (
        ("POST", "/users", b'"username":"intruder"'),
        ("PUT", "/users/hostile/rating", b'"rating":1501'),
    ):
        for body in (b"{%b,%b}" % (known, value), b"{%b,%b}" % (value, known)):
            assert_problem(service.raw(request(method, target, [JSON], body)), "validation")


@pytest.mark.parametrize(
    ("method", "target", "body", "field"),
    [
        ("POST", "/users", b'{"rating":1500,"id":"intruder"}', "username"),
        ("POST", "/users", b'{"username":"intruder","ratings":1500}', "ratings"),
        ("POST", "/users", b'{"username":"intruder","user_id":"x"}', "user_id"),
        ("PUT", "/users/hostile/rating", b"{}", "rating"),
        ("PUT", "/users/hostile/rating", b'{"delta":5}', "delta"),
        ("PUT", "/users/hostile/rating", b'{"rating":1501,"id":"bystander"}', "id"),
        ("PUT", "/users/hostile/rating", b'{"rating":1501,"username":"intruder"}', "username"),
    ],
)
def test_a_field_that_is_missing_or_foreign_is_named(
    service: Service, method: str, target: str, body: bytes, field: str
) -> None:
    assert_problem(service.raw(request(method, target, [JSON], body)), "validation", field)


@pytest.mark.parametrize("body", [b'{"rating":1501,"rating":5001}', b'{"rating":5001,"rating":1501}'])
def test_a_field_given_twice_does_not_hide_a_wrong_value(service: Service, body: bytes) -> None:
    """Whichever of the two comes last, each is checked."""
    assert_problem(service.raw(request("PUT", "/users/hostile/rating", [JSON], body)), "validation", "rating")


# Bodies


@cases(hostile.NO_BODIES)
@pytest.mark.parametrize("chunk", [0, 7_000], ids=["whole", "in chunks"])
def test_a_body_that_is_no_object_is_refused(service: Service, value: bytes, chunk: int) -> None:
    for method, target in (("POST", "/users"), ("PUT", "/users/hostile/rating")):
        assert_problem(service.raw(request(method, target, [JSON], value, chunk=chunk)), "validation")


def test_a_missing_body_is_refused(service: Service) -> None:
    """With no length either."""
    for method, target in (("POST", "/users"), ("PUT", "/users/hostile/rating")):
        assert_problem(service.raw(request(method, target, [JSON])), "validation")


@pytest.mark.parametrize("value", hostile.NO_CONTENT_TYPES.values(), ids=hostile.NO_CONTENT_TYPES)
def test_a_body_of_another_type_is_refused(service: Service, value: bytes | None) -> None:
    """415, though what is inside would be fine."""
    headers = [] if value is None else [("Content-Type", value)]
    for method, target, body in (
        ("POST", "/users", b'{"username":"intruder"}'),
        ("PUT", "/users/hostile/rating", b'{"rating":1501}'),
    ):
        assert_problem(service.raw(request(method, target, headers, body)), "unsupported-media-type")


@pytest.mark.parametrize("value", hostile.CONTENT_TYPES)
def test_json_is_json_however_it_is_spelled(service: Service, value: bytes) -> None:
    """A body of an accepted type is read, and found to change nothing."""
    answer = service.raw(request("PUT", "/users/hostile/rating", [("Content-Type", value)], b'{"rating":1500}'))

    assert 200 == answer.status


@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_a_body_in_a_content_coding_is_refused(service: Service, encode: Callable[[bytes], bytes]) -> None:
    """We read none: neither 200 nor something of its own making."""
    headers = [JSON, ("Content-Encoding", "gzip" if encode is gzip.compress else "deflate")]
    answer = service.raw(request("PUT", "/users/hostile/rating", headers, encode(b'{"rating":1501}')))

    assert answer.status in (400, 415)
    assert_problem(answer, "validation" if answer.status == 400 else "unsupported-media-type")


# Parameters, paths, headers


@cases(hostile.NO_LIMITS)
@pytest.mark.parametrize("target", [b"/users/search?username=hos&limit=%b", b"/leaderboard?limit=%b"])
def test_a_limit_that_is_none_is_refused(service: Service, target: bytes, value: bytes) -> None:
    assert_problem(service.raw(request("GET", target % value)), "validation", *_named("limit", value))


@cases(hostile.NO_OFFSETS)
def test_an_offset_that_is_none_is_refused(service: Service, value: bytes) -> None:
    assert_problem(
        service.raw(request("GET", b"/leaderboard?offset=%b" % value)), "validation", *_named("offset", value)
    )


@cases(hostile.NO_CURSORS)
def test_a_cursor_that_is_none_is_refused(service: Service, value: bytes) -> None:
    assert_problem(
        service.raw(request("GET", b"/leaderboard?cursor=%b" % value)), "validation", *_named("cursor", value)
    )


def _named(name: str, value: bytes) -> list[str]:
    # What is no text at all cannot be told apart into parameters.
    return [] if value == b"%FF" else [name]


@cases(hostile.ODD_SEARCHES)
def test_a_search_for_odd_characters_finds_nobody(service: Service, value: bytes) -> None:
    """An unmatched name is an empty list, whatever it is made of."""
    answer = service.raw(request("GET", b"/users/search?username=%b" % value))

    assert (200, {"items": []}) == (answer.status, answer.json())


@pytest.mark.parametrize("value", [b"%FF", b"%C3", b"%ED%A0%80", b"%C0%AF"])
@pytest.mark.parametrize(
    "target", [b"/users/search?username=%b", b"/users/search?username=a&%b=1", b"/ratings/1500?%b"]
)
def test_a_query_that_is_no_utf_8_is_refused(service: Service, target: bytes, value: bytes) -> None:
    assert_problem(service.raw(request("GET", target % value)), "validation")


@pytest.mark.parametrize("query", [b"&" * 60_000, b"username=a&" * 5_000, b"&".join(b"p%d=1" % n for n in range(6000))])
def test_a_query_of_very_many_parameters_is_refused(service: Service, query: bytes) -> None:
    assert_problem(service.raw(request("GET", b"/users/search?%b" % query)), "validation", "query")


@cases(hostile.NO_PATH_IDS)
def test_an_id_in_the_path_that_nobody_has_finds_nobody(service: Service, value: bytes) -> None:
    """400 for what can be no id, 404 for what could; reading and writing alike."""
    reading = request("GET", b"/users/%b" % value)
    writing = request("PUT", b"/users/%b/rating" % value, [JSON], b'{"rating":1501}')
    for answer in (service.raw(reading), service.raw(writing)):
        assert answer.status in (400, 404)
        assert_problem(answer, *(["validation", "id"] if answer.status == 400 else ["not-found"]))
        assert "x-injected" not in answer.headers


@cases(hostile.NO_VERSIONS)
def test_an_if_match_that_matches_nothing_is_refused(service: Service, value: bytes) -> None:
    """400 for what is no tag, 412 for what is another's: in no case is anything written."""
    version = str(service.get("/users/hostile").json()["version"]).encode()
    tag = ("If-Match", value.replace(b"{version}", version))
    answer = service.raw(request("PUT", "/users/hostile/rating", [JSON, tag], b'{"rating":1501}'))

    assert answer.status in (400, 412)
    assert_problem(answer, *(["validation", "If-Match"] if answer.status == 400 else ["precondition-failed"]))


def test_two_lines_of_if_match_are_one_list(service: Service) -> None:
    """The first must not count for both: one of the tags is not the user's."""
    version = service.get("/users/hostile").json()["version"]
    headers = [JSON, ("If-Match", f'"v{version}"'), ("If-Match", "nonsense")]
    answer = service.raw(request("PUT", "/users/hostile/rating", headers, b'{"rating":1501}'))

    assert answer.status in (400, 412)


@cases(hostile.NO_VERSIONS)
def test_an_if_none_match_that_matches_nothing_is_passed_over(service: Service, value: bytes) -> None:
    answer = service.raw(request("GET", "/users/hostile", [("If-None-Match", value.replace(b"{version}", b"1"))]))

    assert 200 == answer.status


# Below JSON


@cases(hostile.NOT_HTTP)
def test_what_is_no_http_is_refused(service: Service, value: bytes) -> None:
    """400 or the end of the connection, with nothing of ours in it; the next client is served."""
    answer = exchange(service.settings.port, value)

    assert answer.status in (0, 400, 404, 405, 505)
    assert answer.status in (404, 405) or answer.body == b""
    assert 200 == service.get("/health/live").status_code


@pytest.mark.parametrize(
    "body", [b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}\r\n0\r\n\r\n", b"2\r\n{}x0\r\n\r\n", b"FFFFFFFFFFFFFFFFFF\r\n{}\r\n"]
)
def test_a_broken_chunk_is_the_clients_fault(service: Service, body: bytes) -> None:
    """Never a 500, which would wake somebody up."""
    head = request("POST", "/users", [JSON, ("Transfer-Encoding", "chunked")])
    answer = service.raw(head + body)

    assert answer.status in (0, 400)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/users/hostile"),
        ("GET", "/leaderboard?limit=1"),
        ("GET", "/leaderboard/stream"),
        ("DELETE", "/users/hostile"),
    ],
)
def test_chunks_that_nobody_would_read_have_the_same_limit(service: Service, method: str, target: str) -> None:
    """A body over 64 KiB is refused wherever it is sent, and nothing is done."""
    answer = service.raw(request(method, target, body=b" " * (64 * 1024 + 1), chunk=8192))

    assert_problem(answer, "too-large")
    assert 200 == service.get("/users/hostile").status_code


def test_chunks_that_nobody_needs_are_passed_over(service: Service) -> None:
    """As a body with a length is; what follows them is the next request."""
    sent = request("GET", "/users/hostile", body=b"{}", chunk=1, last=False) + request("GET", "/health/live")

    assert [200, 200] == [answer.status for answer in exchanges(service.settings.port, sent)]


def test_a_client_that_hangs_up_is_no_defect(service: Service) -> None:
    """In the middle of its body: whatever is logged, it is not as a failed request of ours."""
    headers = [JSON, ("Content-Length", "100"), ("X-Request-Id", "hung-up")]
    with socket.create_connection(("127.0.0.1", service.settings.port)) as connection:
        connection.sendall(request("POST", "/users", headers) + b'{"username":"intr')
    wait_until(lambda: service.logged("hung-up"))

    assert {"request"} == {line["event"] for line in service.logged("hung-up")}
    assert not [line for line in service.defects() if line["request_id"] == "hung-up"]


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("POST", "/users", [("Content-Type", "text/plain")]),
        ("POST", "/nowhere", [JSON]),
        ("POST", "/leaderboard", [JSON]),
        ("POST", "/users?x=1", [JSON]),
        ("PUT", "/users/%00/rating", [JSON]),
        ("GET", "/users/hostile", [JSON]),
    ],
)
def test_a_body_that_was_not_read_is_no_next_request(
    service: Service, method: str, target: str, headers: list[tuple[str, bytes | str]]
) -> None:
    """A refusal that comes before the body leaves the connection in order, or ends it."""
    smuggled = request("PUT", "/users/hostile/rating", [JSON], b'{"rating":1501}')
    sent = request(method, target, headers, smuggled, last=False) + request("GET", "/health/live")
    answers = exchanges(service.settings.port, sent)

    assert answers[0].status in (200, 400, 404, 405, 415)
    assert [200] == [answer.status for answer in answers[1:]] or len(answers) == 1


def test_a_request_behind_a_refused_one_is_answered(service: Service) -> None:
    """A refusal does not end the connection when the whole request was read."""
    sent = request("POST", "/users", [JSON], b"{}", last=False) + request("GET", "/users/hostile")

    assert [400, 200] == [answer.status for answer in exchanges(service.settings.port, sent)]
