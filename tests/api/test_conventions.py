"""What holds for every answer: request ids, problem documents, methods, HEAD, parameters, equal ranks."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from .serving import ROOT, Service, wait_until
from .shapes import ROW, SLUGS, assert_problem, assert_request_id, fresh_name
from .wire import exchanges, request

JSON = ("Content-Type", "application/json")
ROUTES = [
    "/users",
    "/users/nobody",
    "/users/nobody/rating",
    "/users/search",
    "/leaderboard",
    "/users/known/rank",
    "/users/known/neighbors",
    "/users/known/history",
    "/ratings/1500",
    "/ratings/distribution",
    "/ranks",
    "/health",
    "/health/live",
    "/metrics",
]
READS = [
    "/users/known",
    "/users/search?username=known",
    "/leaderboard?limit=3",
    "/users/known/rank",
    "/users/known/neighbors?radius=1",
    "/users/known/history?days=7",
    "/ratings/1500",
    "/ratings/distribution?width=1000",
    "/health",
    "/health/live",
    "/health/ready",
]

# One request for each kind of answer that a well service gives: its status, and the slug if it is a refusal.
ANSWERS: dict[str, tuple[int, str, bytes]] = {
    "read": (200, "", request("GET", "/users/known")),
    "page": (200, "", request("GET", "/leaderboard")),
    "rank": (200, "", request("GET", "/users/known/rank")),
    "neighbors": (200, "", request("GET", "/users/known/neighbors")),
    "history": (200, "", request("GET", "/users/known/history")),
    "list": (200, "", request("POST", "/ranks", [JSON], b'{"user_ids":["known"]}')),
    "rating": (200, "", request("GET", "/ratings/1500")),
    "distribution": (200, "", request("GET", "/ratings/distribution")),
    "search": (200, "", request("GET", "/users/search?username=known")),
    "write": (200, "", request("PUT", "/users/known/rating", [JSON], b'{"rating":1500}')),
    "health": (200, "", request("GET", "/health")),
    "head": (200, "", request("HEAD", "/users/known")),
    "unchanged": (304, "", request("GET", "/users/known", [("If-None-Match", "*")])),
    "bad field": (400, "validation", request("POST", "/users", [JSON], b'{"username":"x"}')),
    "bad parameter": (400, "validation", request("GET", "/leaderboard?limit=0")),
    "bad cursor": (400, "validation", request("GET", "/leaderboard?cursor=x")),
    "no such user": (404, "not-found", request("GET", "/users/nobody")),
    "no such route": (404, "not-found", request("GET", "/nowhere")),
    "no such method": (405, "method-not-allowed", request("POST", "/leaderboard", [JSON], b"{}")),
    "name taken": (409, "username-taken", request("POST", "/users", [JSON], b'{"username":"known"}')),
    "id taken": (409, "id-taken", request("POST", "/users", [JSON], b'{"username":"unknown","id":"known"}')),
    "old version": (
        412,
        "precondition-failed",
        request("PUT", "/users/known/rating", [JSON, ("If-Match", '"v0"')], b'{"rating":1}'.replace(b"1", b"1501")),
    ),
    "too large": (413, "too-large", request("POST", "/users", [JSON], b" " * 65537)),
    "too large for a read": (413, "too-large", request("GET", "/users/known", body=b" " * 65537)),
    "too large in chunks": (413, "too-large", request("POST", "/users", [JSON], b" " * 65537, chunk=4096)),
    "not JSON": (415, "unsupported-media-type", request("POST", "/users", [("Content-Type", "text/plain")], b"{}")),
}


@pytest.fixture(scope="module", autouse=True)
def _known(service: Service) -> None:
    """A user that every test may look up."""
    service.created("known", id="known", rating=1500)


@pytest.fixture
def broken(service: Service) -> Iterator[Service]:
    """A service whose table is gone for a moment: every statement about users is a defect."""
    service.execute("ALTER TABLE users RENAME TO hidden")
    try:
        yield service
    finally:
        service.execute("ALTER TABLE hidden RENAME TO users")
        wait_until(service.is_mirrored)


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_kind_of_answer_is_the_documented_one(service: Service, kind: str) -> None:
    """Its status, and for a refusal the problem document of its kind."""
    status, slug, sent = ANSWERS[kind]
    answer = service.raw(sent)

    assert status == answer.status
    if slug:
        fields = {"bad field": "username", "bad parameter": "limit", "bad cursor": "cursor"}
        assert_problem(answer, slug, *([fields[kind]] if kind in fields else []))


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_sane_request_id_comes_back(service: Service, kind: str) -> None:
    """On every kind of answer, so that a caller finds its request in the log."""
    sent = ANSWERS[kind][2].replace(b"\r\n", b"\r\nX-Request-Id: my-request.1:2_3\r\n", 1)

    assert "my-request.1:2_3" == service.raw(sent).headers["x-request-id"]


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("insane", [b"", b"a b", b"a\tb", b"<script>", b"caf\xc3\xa9", b"\xff", b"'; --", b"x" * 2000])
def test_an_insane_request_id_is_replaced(service: Service, kind: str, insane: bytes) -> None:
    """Nothing that could confuse a log or a page comes back."""
    sent = ANSWERS[kind][2].replace(b"\r\n", b"\r\nX-Request-Id: %b\r\n" % insane, 1)
    answer = service.raw(sent)

    assert_request_id(answer.headers)
    assert insane.decode("latin-1").strip() != answer.headers["x-request-id"]


def test_request_ids_differ(service: Service) -> None:
    """Also on one connection, and between answers of different kinds."""
    ids = [service.get(target).headers["x-request-id"] for target in ("/health", "/health", "/nowhere", "/users/known")]

    assert 4 == len(set(ids))


def test_a_request_id_is_given_once(service: Service) -> None:
    """One header line, whatever the caller sent."""
    answer = service.get("/health/live", X_Request_Id="one")

    assert ["one"] == answer.headers.get_list("x-request-id")


def test_a_defect_of_ours_tells_nothing_but_the_request_id(broken: Service) -> None:
    """500 with the documented problem: no exception, no SQL, no path; the id leads to the log, which has it all."""
    for answer in (
        broken.get("/users/search?username=abc", X_Request_Id="search.defect"),
        broken.put("known", 1600, X_Request_Id="rating.defect"),
        broken.post({"username": fresh_name()}, X_Request_Id="creation.defect"),
    ):
        request_id = answer.headers["x-request-id"]

        assert SLUGS["internal"] == answer.status_code
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail"} <= set(answer.json()) <= {*_PROBLEM, "request_id"}
        assert "/problems/internal" == answer.json()["type"]
        assert request_id.endswith(".defect")
        assert request_id in answer.text
        assert not re.search(
            r"users|hidden|relation|42P01|psycopg|Error\b|Traceback|\.py|SELECT|/site-packages", answer.text
        )
        assert str(ROOT) not in answer.text
        assert [line for line in broken.defects() if line["request_id"] == request_id and "exception" in line]


_PROBLEM = ("type", "title", "status", "detail", "errors")


def test_a_defect_passes(broken: Service) -> None:
    """The service goes on: what needs no table is answered meanwhile."""
    assert 500 == broken.get("/users/search?username=abc").status_code
    assert 200 == broken.get("/health/live").status_code


# Addresses and methods


@pytest.mark.parametrize(
    "target",
    [
        "/nowhere",
        "/users/known/nothing",
        "/leaderboard/nothing",
        "/health/nothing",
        "/Users/known",
        "/LEADERBOARD",
        "/x" * 500,
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_address_is_not_found(service: Service, target: str, method: str) -> None:
    assert_problem(service.client.request(method, target), "not-found")


@pytest.mark.parametrize(
    "target",
    ["/users/", "/users/known/", "//users/known", "/users//known", "/leaderboard/", "/leaderboard%2F", "/health/"],
)
def test_an_address_has_no_other_spelling(service: Service, target: str) -> None:
    """A slash too many is another address, at which there is nothing."""
    assert_problem(service.raw(request("GET", target)), "not-found")


@pytest.mark.parametrize("target", ROUTES)
def test_allow_names_the_methods_that_are_understood(service: Service, target: str) -> None:
    """405 for every other one, and none of those that Allow names; who answers GET answers HEAD."""
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "get"]
    answers = {method: service.raw(request(method, target)) for method in methods}
    refused = {method for method, answer in answers.items() if answer.status == 405}

    for method in refused:
        allowed = {name.strip() for name in answers[method].headers["allow"].split(",")}
        assert set(methods) - refused == allowed - {"OPTIONS"}
        if method != "HEAD":
            assert_problem(answers[method], "method-not-allowed")
    assert ("GET" in refused) == ("HEAD" in refused)
    assert {"TRACE", "PROPFIND", "get"} <= refused
    told = service.raw(request("OPTIONS", target)).headers["allow"]
    assert set(methods) - refused == {name.strip() for name in told.split(",")} - {"OPTIONS"}


@pytest.mark.parametrize("target", [*READS, "/users/nobody", "/nowhere", "/leaderboard?limit=0", "/users"])
def test_head_is_get_without_the_body(service: Service, target: str) -> None:
    """The same status and the same headers, whatever the answer."""
    full, head = service.client.get(target), service.client.head(target)
    own = {"date", "x-request-id", "x-mirror-lag-ms"} | ({"content-length"} if target == "/health" else set())

    assert (full.status_code, b"") == (head.status_code, head.content)
    assert set(full.headers) == set(head.headers)
    assert _without(full.headers, own) == _without(head.headers, own)


def _without(headers: httpx.Headers, names: set[str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names}


def test_head_leaves_the_connection_in_order(service: Service) -> None:
    """The next answer on the connection is the next request's."""
    sent = request("HEAD", "/users/known", last=False) + request("HEAD", "/users/nobody")

    assert [200, 404] == [answer.status for answer in exchanges(service.settings.port, sent)]


def test_an_upgrade_that_is_not_offered_is_passed_over(service: Service) -> None:
    """There are no web sockets here; the request is answered as if it had not asked for one."""
    key = [("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
    for headers in ([("Upgrade", "websocket"), *key], [("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAARAAAAA")]):
        head = request("GET", "/users/known", [*headers, ("Connection", "Upgrade")])
        answer = service.raw(head)

        assert 200 == answer.status
        assert "known" == answer.json()["id"]
        assert_request_id(answer.headers)


# Parameters


@pytest.mark.parametrize("target", [target for target in ROUTES if not target.startswith("/health")])
@pytest.mark.parametrize("name", ["x", "Limit", "limit[]", "username ", "offsets"])
def test_an_unknown_parameter_is_refused(service: Service, target: str, name: str) -> None:
    """On every route of the API, also where there are none at all; before anything is written."""
    method = "POST" if target in ("/users", "/ranks") else "PUT" if target.endswith("/rating") else "GET"
    body = {"POST": {"username": fresh_name()}, "PUT": {"rating": 1500}}.get(method)
    before = service.rows()
    answer = service.client.request(method, target, params={"username": "known", name: "1"}, json=body)

    assert_problem(answer, "validation", name)
    assert before == service.rows()


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("/users/search?username=a&username=a", "username"),
        ("/users/search?username=a&username=b", "username"),
        ("/users/search?username=a&limit=5&limit=5", "limit"),
        ("/users/search?username=a&limit=5&%6Cimit=5", "limit"),
        ("/leaderboard?limit=5&limit=6", "limit"),
        ("/leaderboard?offset=1&offset=1", "offset"),
        ("/leaderboard?cursor=a&cursor=a", "cursor"),
        ("/leaderboard?limit=5&limit=", "limit"),
    ],
)
def test_a_parameter_given_twice_is_refused(service: Service, query: str, name: str) -> None:
    assert_problem(service.get(query), "validation", name)


def test_every_problem_is_named_at_once(service: Service) -> None:
    """One round trip shows all that is wrong with a query."""
    answer = service.get("/leaderboard?limit=0&offset=-1&x=1")

    assert_problem(answer, "validation", "limit", "offset", "x")


# Ranks


def test_a_user_has_one_rank_on_every_route(service: Service) -> None:
    """By id, in a search, on the board and in the answer to a write: the same at the same moment."""
    for number in range(12):
        service.created(fresh_name("same"), rating=2000 + number % 3)
    listed = {row["id"]: row for row in service.get("/leaderboard?limit=1000").json()["items"]}
    searched = {user["id"]: user for user in service.get("/users/search?username=same").json()["items"]}

    assert 12 == len(searched)
    for user_id, user in searched.items():
        assert user == service.get(f"/users/{user_id}").json()
        assert {field: user[field] for field in ROW} == listed[user_id]
        written = service.put(user_id, user["rating"]).json()
        assert {field: written[field] for field in user} == user
