"""The fast lane answers what is ordinary exactly as the framework does, and leaves everything else to it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from service.api.access import Keys
from service.api.lane import Lane
from tests.servers.own_redis import own_redis

from .serving import Service, serving, wait_until

ADA, BOB = "ada", "bob:1"
OWN = {"x-request-id", "date", "x-mirror-lag-ms", "ratelimit-remaining", "content-length"}
"""Headers that no two answers share."""
LONG_WAY: dict[str, dict[str, str]] = {"GET": {"Cache-Control": "max-age=0"}, "PUT": {"If-Match": "*"}}
"""Means nothing to us, and is not ordinary."""

READS = [
    "/users/ada",
    "/users/bob:1",
    "/users/nobody",
    "/users/ada/rank",
    "/users/nobody/rank",
    "/users/ada/neighbors?radius=1",
    "/users/ada/neighbors?radius=100",
    "/users/nobody/neighbors?radius=5",
    "/leaderboard?limit=1",
    "/leaderboard?limit=1&offset=1",
    "/leaderboard?limit=1000&offset=0",
    "/leaderboard?limit=3&offset=999999999999999",
]
OTHERS = [
    "/users/search",
    "/users/a~b",
    "/users/" + "a" * 65,
    "/users/ada/neighbors",
    "/users/ada/neighbors?radius=0",
    "/users/ada/neighbors?radius=101",
    "/users/ada/neighbors?radius=05",
    "/users/ada/neighbors?radius=5&radius=5",
    "/users/ada/rank?x=1",
    "/users/ada?x",
    "/users/ada/nothing",
    "/leaderboard",
    "/leaderboard?limit=0",
    "/leaderboard?limit=1001",
    "/leaderboard?limit=01",
    "/leaderboard?offset=1&limit=1",
    "/leaderboard?limit=1&offset=-1",
    "/leaderboard?limit=1&cursor=x",
    "/health/live",
    "/",
]


@pytest.fixture(scope="module")
def running(stores: Any) -> Iterator[Service]:
    """A service with three users."""
    name = stores.create(stores.template)
    with stores.empty_redis(), serving(stores.url(name), stores.redis_url) as service:
        for user_id, username, rating in ((ADA, "Ada", 2000), (BOB, "Bob", 2000), ("eve", "Eve", 1500)):
            service.created(username, id=user_id, rating=rating)
        wait_until(service.is_mirrored)
        yield service
    stores.drop(name)


def shown(answer: httpx.Response) -> tuple[int, Any, dict[str, str]]:
    """What an answer says, whichever way it came."""
    return answer.status_code, answer.json(), {k: v for k, v in answer.headers.items() if k not in OWN}


@pytest.mark.parametrize("target", READS)
def test_a_read_is_answered_alike_on_both_ways(running: Service, target: str) -> None:
    answer = running.client.get(target)

    # A write of another test may have to be mirrored first: until then the two may ask different stores.
    wait_until(lambda: shown(running.client.get(target, headers=LONG_WAY["GET"])) == shown(running.client.get(target)))
    assert {"x-request-id", "x-content-type-options", "content-length"} <= set(answer.headers)


@pytest.mark.parametrize(
    "body", [b'{"rating": 2000}', b'{"rating": 99}', b"{", b"{}", b"[]", b'{"rating":1,"x":2}', b'{"rating":true}']
)
@pytest.mark.parametrize("user_id", [ADA, "nobody"])
def test_a_write_is_answered_alike_on_both_ways(running: Service, user_id: str, body: bytes) -> None:
    """Ada has that rating already, so nothing changes from one to the other."""
    target, json = f"/users/{user_id}/rating", {"Content-Type": "application/json"}
    answer = running.client.put(target, content=body, headers=json)

    assert shown(running.client.put(target, content=body, headers=json | LONG_WAY["PUT"])) == shown(answer)


@pytest.mark.parametrize(
    "body",
    [
        b'{"user_ids": ["eve", "nobody", "ada"]}',
        b'{"user_ids": ["ada", "ada"]}',
        b'{"user_ids": []}',
        b'{"user_ids": ["a b"]}',
        b"[",
        b'{"user_ids": ["ada"], "x": 1}',
    ],
)
def test_a_list_is_answered_alike_on_both_ways(running: Service, body: bytes) -> None:
    json = {"Content-Type": "application/json"}

    def ask(**more: str) -> tuple[int, Any, dict[str, str]]:
        return shown(running.client.post("/ranks", content=body, headers=json | more))

    wait_until(lambda: ask() == ask(**LONG_WAY["GET"]))


class _Ways:
    """A lane before a framework that only notes what reaches it, and a ladder that only notes what is asked."""

    def __init__(self) -> None:
        self.asked = self.passed = 0
        self.sent: list[Any] = []
        standings = SimpleNamespace(rank=self._ask, neighbors=self._ask, rows=self._ask)
        ladder = SimpleNamespace(user=self._ask, page=self._ask, rate=self._ask, standings=standings)
        self.lane = Lane(self._pass, lambda: cast("Any", ladder), Keys([]))

    async def _pass(self, *_: object) -> None:
        self.passed += 1

    async def _ask(self, *_: object, **__: object) -> None:
        self.asked += 1
        raise InterruptedError

    async def go(
        self, method: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes = b""
    ) -> tuple[int, int]:
        path, _, query = target.partition("?")
        scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": headers}

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            self.sent.append(message)

        await self.lane(scope, receive, send)
        return self.asked, self.passed


HOST = (b"host", b"localhost:8080")
JSON = [HOST, (b"content-type", b"application/json"), (b"content-length", b"15")]


@pytest.mark.parametrize("target", READS)
async def test_what_is_ordinary_never_meets_the_framework(target: str) -> None:
    assert (1, 0) == await _Ways().go("GET", target, [HOST, (b"accept", b"*/*"), (b"cookie", b"a=b")])


async def test_a_defect_is_answered_inside_what_adds_headers() -> None:
    """As the framework answers one: else nobody would be told of the rate limit, and no page could read it."""
    ways = _Ways()
    await ways.go("GET", "/users/a/rank", [HOST])

    assert 500 == ways.sent[0]["status"]
    assert b"/problems/internal" in ways.sent[1]["body"]


@pytest.mark.parametrize("target", OTHERS)
async def test_whatever_else_goes_the_long_way(target: str) -> None:
    assert (0, 1) == await _Ways().go("GET", target, [HOST])


@pytest.mark.parametrize(
    "headers",
    [
        [(b"host", b"a b")],
        [HOST, HOST],
        *(
            [HOST, (name, b"x")]
            for name in (b"x-consistency-token", b"cache-control", b"if-none-match", b"content-length")
        ),
    ],
)
async def test_a_read_with_a_header_that_matters_goes_the_long_way(headers: list[tuple[bytes, bytes]]) -> None:
    assert (0, 1) == await _Ways().go("GET", "/users/ada/rank", headers)


async def test_an_ordinary_list_never_meets_the_framework() -> None:
    assert (1, 0) == await _Ways().go("POST", "/ranks", JSON, b'{"user_ids":["a"]}')


@pytest.mark.parametrize("name", [b"x-consistency-token", b"cache-control", b"content-encoding", b"transfer-encoding"])
async def test_a_list_with_a_header_that_matters_goes_the_long_way(name: bytes) -> None:
    assert (0, 1) == await _Ways().go("POST", "/ranks", [*JSON, (name, b"x")], b'{"user_ids":["a"]}')


async def test_an_ordinary_write_never_meets_the_framework() -> None:
    assert (1, 0) == await _Ways().go("PUT", "/users/ada/rating", JSON, b'{"rating":1500}')


@pytest.mark.parametrize(
    "headers",
    [
        [HOST],
        [HOST, (b"content-type", b"application/json")],
        [HOST, (b"content-type", b"application/json; charset=utf-8"), (b"content-length", b"15")],
        [HOST, (b"content-type", b"application/json"), (b"content-length", b"65537")],
        [*JSON, (b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")],
        *([*JSON, (name, b"x")] for name in (b"if-match", b"content-encoding", b"transfer-encoding", b"expect")),
    ],
)
async def test_a_write_with_a_header_that_matters_goes_the_long_way(headers: list[tuple[bytes, bytes]]) -> None:
    assert (0, 1) == await _Ways().go("PUT", "/users/ada/rating", headers, b'{"rating":1500}')


@pytest.mark.parametrize(
    ("method", "target"),
    [("PUT", "/users/ada"), ("PUT", "/ratings"), ("DELETE", "/users/ada"), ("POST", "/ranks?x=1"), ("POST", "/users")],
)
async def test_other_methods_go_the_long_way(method: str, target: str) -> None:
    assert (0, 1) == await _Ways().go(method, target, JSON)


@pytest.mark.parametrize("key", ["", "Bearer wrong"])
def test_the_lane_lets_nobody_write_without_a_key(database_url: str, key: str) -> None:
    """As the framework refuses it: 401, and nothing is changed. Without Redis, in which the module has its board."""
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
    with own_redis() as server, serving(database_url, server.url, env={"API_KEYS": digest}) as service:
        service.execute("INSERT INTO users (id, username, rating) VALUES ('ada', 'Ada', 2000)")
        named = {"Authorization": key} if key else {}
        answer = service.client.put("/users/ada/rating", json={"rating": 100}, headers=named)
        assert (401, "Bearer") == (answer.status_code, answer.headers["www-authenticate"])
        assert 2000 == next(iter(service.rows().values())).rating
        assert (
            200
            == service.client.put(
                "/users/ada/rating", json={"rating": 100}, headers={"Authorization": "Bearer secret"}
            ).status_code
        )
