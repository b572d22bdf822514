"""What two readers could understand in two ways is refused: names twice, broken escapes, dots as ids, no host or two."""

from __future__ import annotations

import time

import pytest

from .serving import Service
from .shapes import assert_problem, fresh_name
from .wire import Reply, request

JSON = ("Content-Type", "application/json")
TARGET = "/users/ambiguous/rating"


@pytest.fixture(scope="module", autouse=True)
def _user(service: Service) -> None:
    """A user to be written to."""
    service.created("ambiguous", id="ambiguous", rating=1500)


def send(service: Service, method: str, target: str | bytes, body: bytes) -> Reply:
    """Answer to a write; the fast way if the body is short and nothing is odd."""
    return service.raw(request(method, target, [JSON], body))


# A member that is given twice

TWICE: list[tuple[str, str, bytes, str]] = [
    ("PUT", TARGET, b'{"rating":1600,"rating":1700}', "rating"),
    ("PUT", TARGET, b'{"rating":1600,"rating":1600}', "rating"),
    ("PUT", TARGET, b'{"rating":1600,"r\\u0061ting":1700}', "rating"),
    ("PUT", TARGET, b'{"\\u0072ating":1600,\n"r\\u0061ting" : 1700}', "rating"),
    ("PATCH", TARGET, b'{"delta":1,"delta":2}', "delta"),
    ("PATCH", TARGET, b'{"delta":1,"delta":' + b"9" * 4000 + b"}", "delta"),
    ("PATCH", "/users/ambiguous", b'{"username":"one","username":"two"}', "username"),
    ("POST", "/users", b'{"username":"twice","username":"twice"}', "username"),
    ("POST", "/users", b'{"username":"twice","rating":1500,"rating":1500}', "rating"),
    ("POST", "/users", b'{"id":"a:1","username":"twice","id":"a:2"}', "id"),
    ("PUT", "/ratings", b'{"updates":[],"updates":[{"id":"ambiguous","rating":1600}]}', ""),
    ("PUT", "/ratings", b'{"updates":[{"id":"ambiguous","rating":1600}],"updates":[{"id":"b","rating":1}]}', ""),
    ("PUT", "/ratings", b'{"updates":[{"id":"a","rating":1600},{"id":"b","rating":1,"rating":1600}]}', ""),
    ("PUT", "/ratings", b'{"updates":[{"id":"a","rating":1600},{"id":"b","rating":1600,"id":"ambiguous"}]}', "updates[1].id"),
    ("PUT", "/ratings", b'{"updates":[{"id":"ambiguous","r\\u0061ting":1600,"rating":1601}]}', "updates[0].rating"),
    ("POST", "/ranks", b'{"user_ids":["a"],"user_ids":["ambiguous"]}', "user_ids"),
    ("POST", "/ranks", b'{"user_ids":["a"],"user\\u005fids":["ambiguous"]}', "user_ids"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "target", "body", "field"), TWICE)
def test_a_member_given_twice_is_refused(service: Service, method: str, target: str, body: bytes, field: str) -> None:
    """On every route with a body, nested or not, however its name is spelled; nothing changes."""
    before = service.rows()
    answer = send(service, method, target, body)

    assert_problem(answer, "validation", *([field] if field else []))
    assert before == service.rows()


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("PUT", TARGET, b'{"r\\u0061ting":1500}'),
        ("POST", "/ranks", b'{"user_ids":["a:1","rating:rating","b:b:b:b"]}'),
        ("PUT", "/ratings", b'{"updates":[{"id":"a:1","rating":1500},{"id":"a:2","rating":1500}]}'),
    ],
)
def test_colons_and_escapes_repeat_nothing(service: Service, method: str, target: str, body: bytes) -> None:
    """One member each, whatever stands in the values."""
    assert 200 == send(service, method, target, body).status


@pytest.mark.parametrize(
    "body",
    [
        b'{"user_ids":["a:b"' + b" " * 1_000_000 + b"]}",
        b'{"user_ids":[' + b",".join(b'"%064d"' % number for number in range(1000)) + b"]," + b" " * 900_000 + b'"user_ids":["a"]}',
        b'{"user_ids":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b'{"user_ids":["a"],"x":' + b'{"x":' * 150_000 + b"1" + b"}" * 150_000 + b"}",
        b"{" + b'"user_ids":["a"],' * 50_000 + b'"user_ids":["b"]}',
    ],
    ids=["spaces", "a repetition far away", "nested lists", "nested objects", "one member fifty thousand times"],
)  # fmt: skip
def test_a_body_of_a_megabyte_is_read_in_time(service: Service, body: bytes) -> None:
    """Neither depth nor number nor length makes the search for repetitions slow."""
    begun = time.monotonic()
    assert send(service, "POST", "/ranks", body).status in (200, 400)
    assert time.monotonic() - begun < 2


# Escapes of a query


@pytest.mark.parametrize(
    "escape", ["%", "%z", "%zz", "%4", "%4g", "%%", "%u0061", "%-1", "% 41", "a%", "%ff", "%c3%28"]
)
@pytest.mark.parametrize(
    "target", ["/users/search?username={}", "/leaderboard?{}=1", "/leaderboard?limit=1{}", "/users/ambiguous/rank?{}"]
)
def test_an_escape_that_is_none_is_refused(service: Service, target: str, escape: str) -> None:
    """Not taken for the characters that it consists of."""
    answer = service.raw(request("GET", target.format(escape).replace(" ", "+")))

    assert_problem(answer, "validation")


def test_an_escape_is_read(service: Service) -> None:
    """A percent sign is written %25, in either case of the digits."""
    assert ["ambiguous"] == [
        user["id"] for user in service.get("/users/search?username=%61mbig%75o%75%73").json()["items"]
    ]
    for target in ("/users/search?username=%25zz", "/users/search?username=%c3%A9"):
        assert [] == service.raw(request("GET", target)).json()["items"]


# Dots


@pytest.mark.parametrize("dots", [".", ".."])
def test_dots_are_no_id(service: Service, dots: str) -> None:
    """Clients resolve them in paths, so they could not be asked for; refused wherever an id may stand."""
    before = service.rows()
    assert_problem(service.post({"username": fresh_name(), "id": dots}), "validation", "id")
    assert_problem(service.post({"user_ids": ["ambiguous", dots]}, "/ranks"), "validation")
    update = {"updates": [{"id": "ambiguous", "rating": 1600}, {"id": dots, "rating": 1600}]}
    assert_problem(service.client.put("/ratings", json=update), "validation")
    for spelled in (dots, dots.replace(".", "%2e"), dots.replace(".", "%2E")):
        for tail in ("", "/rank", "/history"):
            assert service.raw(request("GET", f"/users/{spelled}{tail}")).status in (400, 404)
        assert_problem(send(service, "PUT", f"/users/{spelled}/rating", b'{"rating":1600}'), "validation", "id")
    assert before == service.rows()


@pytest.mark.parametrize("user_id", ["...", ".a", "a..", "..a", ":.", "-", "_.", "." * 64])
def test_other_ids_with_dots_are_ids(service: Service, user_id: str) -> None:
    """Only the two that mean a step are none."""
    service.created(fresh_name(), id=user_id)

    assert user_id == service.raw(request("GET", f"/users/{user_id}")).json()["id"]


# The host


def head(line: bytes, *hosts: bytes, body: bytes = b"") -> bytes:
    """A request with these lines of Host."""
    named = b"".join(b"Host:%b\r\n" % host for host in hosts)
    carried = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body) if body else b""
    return line + b"\r\n" + named + carried + b"Connection: close\r\n\r\n" + body


NO_HOSTS: list[tuple[bytes, ...]] = [
    (),
    (b" ",),
    (b" a", b" a"),
    (b" a", b" b"),
    (b" a b",),
    (b" a/b",),
    (b" u@a",),
    (b" a, b",),
    (b" a:b",),
    (b" a:65536",),
    (b" a:80:80",),
    (b" [::1",),
    (b" ::1",),
    (b" [a]b",),
    (b" a%zz",),
    (b" a%",),
    (b" <a>",),
    (b" a\\b",),
    (b" \xff",),
    (b" " + b"a" * 256,),
]


@pytest.mark.parametrize("hosts", NO_HOSTS)
def test_a_request_without_one_valid_host_is_refused(service: Service, hosts: tuple[bytes, ...]) -> None:
    """On every way: the fast one, the framework's, a page, a probe, and a write, which changes nothing."""
    before = service.rows()
    for target in (b"/users/ambiguous/rank", b"/leaderboard", b"/", b"/health/live", b"/nowhere"):
        assert_problem(service.raw(head(b"GET %b HTTP/1.1" % target, *hosts)), "validation", "Host")
    write = head(b"PUT /users/ambiguous/rating HTTP/1.1", *hosts, body=b'{"rating":1600}')
    assert_problem(service.raw(write), "validation", "Host")
    assert before == service.rows()


@pytest.mark.parametrize(
    "host",
    [b"a", b" localhost:8080", b"127.0.0.1", b"[::1]:8080", b"[fe80::1%25eth0]", b"a_b.example.", b"a:", b"a:65535",
     b"xn--bcher-kva.example", b"a%41", b"a" * 255],
)  # fmt: skip
def test_a_valid_host_is_taken(service: Service, host: bytes) -> None:
    """A name, an address of either family, with a port or without."""
    for target in (b"/users/ambiguous/rank", b"/leaderboard"):
        assert 200 == service.raw(head(b"GET %b HTTP/1.1" % target, host)).status


def test_http_1_0_may_name_no_host(service: Service) -> None:
    """Probes of old balancers do not; two are refused there, too."""
    for target in (b"/users/ambiguous/rank", b"/health/ready"):
        line = b"GET %b HTTP/1.0" % target
        assert [200, 200, 400] == [service.raw(head(line, *hosts)).status for hosts in ((), (b"a",), (b"a", b"a"))]


@pytest.mark.parametrize(("authority", "status"), [(b"a.example:8080", 200), (b"a:65536", 400), (b"u:p@a", 400)])
def test_a_whole_url_names_its_host(service: Service, authority: bytes, status: int) -> None:
    """As a client of a forward proxy sends it; the name must be a valid one there, too."""
    line = b"GET http://%b/users/ambiguous/rank HTTP/1.1" % authority

    assert status == service.raw(head(line)).status
    assert 400 == service.raw(head(line, b"a", b"a")).status
