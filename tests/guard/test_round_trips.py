"""How often each request asks the stores, and how many bytes it moves: counted on the way, whatever is done inside."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence

import httpx
import pytest
import redis

from service.model import new_user_id
from tests.api.serving import Service, wait_until
from tests.api.wire import request
from tests.conftest import Stores
from tests.servers.own_redis import own_redis

from .meter import SETTLE_SECONDS, Count
from .metered import USERS, Metered, metered

AT_ONCE = 100
BATCH_SECONDS = 0.06
"""How long Redis takes to answer while a crowd comes: less than it may, and enough for the rest to gather."""
CROWD_TRIPS = 8
TRIES = 4
PREPARED = 13
"""After so many times each of four connections, used in turn, has a statement prepared, which is a round trip too."""


@pytest.fixture(scope="module")
def at(stores: Stores) -> Iterator[Metered]:
    """The service that the tests of this module ask."""
    with metered(stores, stores.redis_url) as made:
        yield made


IDS = [f"id-{number}" for number in range(1, USERS + 1)]
READS: dict[str, Callable[[Service], httpx.Response]] = {
    "user": lambda service: service.get("/users/id-5"),
    "rank": lambda service: service.get("/users/id-5/rank"),
    "neighbors": lambda service: service.get("/users/id-5/neighbors?radius=100"),
    "page": lambda service: service.get("/leaderboard?limit=1000&offset=100"),
    "page by cursor": lambda service: service.get(f"/leaderboard?limit=100&cursor={cursor(service)}"),
    "list": lambda service: service.post({"user_ids": IDS[:1000]}, "/ranks"),
    "rating": lambda service: service.get("/ratings/1020"),
    "distribution": lambda service: service.get("/ratings/distribution"),
    "read after a write": lambda service: service.get("/users/id-5", x_consistency_token="id-5:1"),
}
_cursors: dict[int, str] = {}


def cursor(service: Service) -> str:
    """A cursor of the service's, fetched once."""
    if service.settings.port not in _cursors:
        _cursors[service.settings.port] = service.get("/leaderboard?limit=10").json()["next_cursor"]
    return _cursors[service.settings.port]


@pytest.mark.parametrize("read", READS)
def test_a_read_is_one_round_trip_to_redis_and_none_to_postgres(at: Metered, read: str) -> None:
    """The mirror is ready and the objects are cached: ranks, rows and users come in one pipeline."""
    READS[read](at.service)
    with at.counting() as (to_redis, to_postgres):
        answer = READS[read](at.service)

    assert (200, "redis") == (answer.status_code, answer.headers["x-rank-source"])
    assert 1 == len(to_redis.trips)
    assert [] == to_postgres.trips


def test_a_search_asks_postgres_once_and_redis_once_for_all_that_it_finds(at: Metered) -> None:
    """The names are Postgres's. Each question to it is one empty query, to see that it is there, and one statement."""
    for _ in range(PREPARED):
        at.service.get("/users/search?username=player1&limit=100")
    with at.counting() as (to_redis, to_postgres):
        answer = at.service.get("/users/search?username=player1&limit=100")

    assert 100 == len(answer.json()["items"])
    assert 1 == len(to_redis.trips)
    assert 2 >= len(to_postgres.trips)


def test_users_who_are_not_cached_are_one_question_to_postgres(at: Metered) -> None:
    """Whoever is found is kept in one round trip too, and is there the next time."""
    to_redis, to_postgres = Count(), Count()
    with redis.Redis.from_url(at.service.settings.redis_url) as client:
        for _ in range(PREPARED):
            if kept := list(client.scan_iter(match="user:*", count=1000)):
                client.delete(*kept)
            with at.counting() as (to_redis, to_postgres):
                at.service.get("/users/search?username=player2&limit=100")

    assert 2 == len(to_redis.trips)
    assert 4 >= len(to_postgres.trips)


WRITES: dict[str, tuple[Callable[[Service, int], httpx.Response], int]] = {
    "create": (lambda service, turn: service.post({"username": f"new{turn}", "id": f"new{turn}"}), 2),
    "put": (lambda service, turn: service.put("id-7", 2000 + turn), 2),
    "patch": (lambda service, turn: service.client.patch("/users/id-7/rating", json={"delta": 1 + turn}), 2),
    "many": (
        lambda service, turn: service.client.put(
            "/ratings", json={"updates": [{"id": user, "rating": 1500 + turn} for user in IDS[:100]]}
        ),
        2,
    ),
    "rename": (lambda service, turn: service.client.patch("/users/id-8", json={"username": f"renamed{turn}"}), 5),
    "delete": (lambda service, turn: service.client.delete(f"/users/id-{1170 + turn}"), 5),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_one_statement_and_one_round_trip_to_redis(at: Metered, write: str) -> None:
    """
    One user or a hundred. Before the statement Postgres is asked which history it is: two round trips.

    What needs a transaction of several statements (a name, a tombstone) has a begin and an end beside them.
    """
    ask, most = WRITES[write]
    for turn in range(PREPARED):
        ask(at.service, turn)
    with at.counting() as (to_redis, to_postgres):
        answer = ask(at.service, PREPARED)

    assert answer.status_code in (200, 201, 204), answer.text
    assert answer.headers.get("x-mirror-write", "applied") == "applied"
    assert 1 == len(to_redis.trips)
    assert "put" in to_redis.commands
    assert most >= len(to_postgres.trips)


def test_a_thousand_ratings_are_one_statement_and_two_round_trips_to_redis(at: Metered) -> None:
    """The second tells the ranks after all of them: a put of a hundred cannot know of the next hundred's."""
    for turn in range(PREPARED):
        at.service.client.put("/ratings", json={"updates": [{"id": user, "rating": 900 + turn} for user in IDS[:1000]]})
    with at.counting() as (to_redis, to_postgres):
        answer = at.service.client.put(
            "/ratings", json={"updates": [{"id": user, "rating": 800} for user in IDS[:1000]]}
        )

    assert {"updated"} == {item["status"] for item in answer.json()["items"]}
    assert 2 >= len(to_redis.trips)
    assert 2 >= len(to_postgres.trips)


def test_a_refused_write_asks_redis_nothing(at: Metered) -> None:
    """Nor does one that is malformed ask anybody."""
    with at.counting() as (to_redis, to_postgres):
        assert 412 == at.service.put("id-7", 2000, if_match='"v1"').status_code
        assert 404 == at.service.put("nobody", 2000).status_code
    assert ([], 4) == (to_redis.trips, len(to_postgres.trips))

    with at.counting() as (to_redis, to_postgres):
        assert 400 == at.service.put("id-7", 20.5).status_code
    assert ([], []) == (to_redis.trips, to_postgres.trips)


# Crowds


def crowd(at: Metered, requests: Sequence[bytes]) -> tuple[int, Count, Count]:
    """Send them all at once, each on a connection of its own; how many were answered well, and what was asked."""
    with contextlib.ExitStack() as stack:
        lines = [
            stack.enter_context(socket.create_connection(("127.0.0.1", at.service.settings.port), timeout=10))
            for _ in requests
        ]
        at.redis.latency = BATCH_SECONDS
        try:
            with at.counting() as (to_redis, to_postgres):
                for line, sent in zip(lines, requests, strict=True):
                    line.sendall(sent)
                answered = sum(_received(line)[9:12] == b"200" for line in lines)
        finally:
            at.redis.latency = SETTLE_SECONDS
    return answered, to_redis, to_postgres


def _received(line: socket.socket) -> bytes:
    """What comes until the other side closes the connection."""
    return b"".join(iter(lambda: line.recv(65536), b""))


JSON = [("Content-Type", "application/json")]
CROWDS: dict[str, Callable[[int], bytes]] = {
    "users": lambda number: request("GET", f"/users/id-{100 + number}"),
    "ranks": lambda number: request("GET", f"/users/id-{100 + number}/rank"),
    "one rank": lambda _: request("GET", "/users/id-5/rank"),
    "one page": lambda _: request("GET", "/leaderboard?limit=100"),
    "one distribution": lambda _: request("GET", "/ratings/distribution"),
    "writes": lambda number: request(
        "PUT", f"/users/id-{100 + number}/rating", JSON, b'{"rating":%d}' % (3000 + number)
    ),
}


@pytest.mark.parametrize("kind", CROWDS)
def test_a_hundred_at_once_make_few_round_trips(at: Metered, kind: str) -> None:
    """
    They go in the batches that are next; a hundred writes are a few statements.

    The fewest of several tries: a machine that does something else in between makes them come one by one.
    """
    for number in range(AT_ONCE):
        at.service.get(f"/users/id-{100 + number}")
    tries = []
    for _ in range(TRIES):
        answered, to_redis, to_postgres = crowd(at, [CROWDS[kind](number) for number in range(AT_ONCE)])
        if answered == AT_ONCE:
            tries.append((len(to_redis.trips), len(to_postgres.trips)))

    assert tries
    assert CROWD_TRIPS >= min(to_redis for to_redis, _ in tries)
    assert (2 * CROWD_TRIPS if kind == "writes" else 0) >= min(to_postgres for _, to_postgres in tries)


# Bytes


def test_bytes_of_a_list_are_its_ids_and_its_rows(at: Metered) -> None:
    """On the way to Redis some 10 bytes beside each id; on the way back four values a user."""
    ids = [new_user_id() for _ in range(500)]
    at.service.execute(
        "INSERT INTO users (id, username, rating) SELECT id, 'listed' || n, 1500"
        f" FROM unnest('{{{','.join(ids)}}}'::text[]) WITH ORDINALITY AS asked (id, n)"
    )
    wait_until(at.service.is_mirrored)
    with at.counting() as (to_redis, _):
        assert 500 == len(at.service.post({"user_ids": ids}, "/ranks").json()["items"])

    assert 400 + 500 * (36 + 10) >= to_redis.asked
    assert 100 + 500 * 80 >= to_redis.told


def test_bytes_of_a_page_are_its_rows(at: Metered) -> None:
    """A member and a score each, and some 16 bytes of protocol; the question does not depend on how many."""
    with at.counting() as (to_redis, _):
        rows = at.service.get("/leaderboard?limit=1000&offset=50").json()["items"]
    shown = sum(len(row["id"] + row["username"]) for row in rows)

    assert 1000 == len(rows)
    assert 400 >= to_redis.asked
    assert 200 + shown + 1000 * 24 >= to_redis.told


def test_bytes_of_a_rank_do_not_depend_on_the_board(at: Metered) -> None:
    with at.counting() as (to_redis, _):
        at.service.get("/users/id-5/rank")

    assert 300 >= to_redis.asked
    assert 100 >= to_redis.told


def test_the_rate_limit_is_one_round_trip_more(stores: Stores) -> None:
    """A request takes its token in one; a crowd's tokens go together too."""
    with own_redis() as server:
        server.start()
        with metered(stores, server.url, RATE_LIMIT_PER_SECOND="500", RATE_LIMIT_BURST="900") as at:
            at.service.get("/users/id-5/rank")
            with at.counting() as (to_redis, to_postgres):
                at.service.get("/users/id-5/rank")
            assert [["rank"], ["take"]] == sorted(to_redis.trips)
            assert [] == to_postgres.trips

            tries = [crowd(at, [CROWDS["ranks"](number) for number in range(AT_ONCE)]) for _ in range(TRIES)]
            assert 2 * CROWD_TRIPS >= min(len(to_redis.trips) for answered, to_redis, _ in tries if answered == AT_ONCE)
