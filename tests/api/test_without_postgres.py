"""Postgres refuses connections: what the mirror knows is served, the rest is refused soon, and all of it passes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import redis

from service.settings import Settings
from tests.conftest import Stores
from tests.ranking.equality import ledger_board, mirror_board
from tests.servers.proxy import Door, door_to

from .serving import Service, serving, wait_until
from .shapes import ROW, assert_problem, assert_ranked_by, fresh_name
from .wire import request

HANG_SECONDS = 3.5
"""Nothing takes longer than this, with some slack for a busy machine."""
PROBE_SECONDS = 0.8
"""How long a probe of readiness may take."""
STALE_SECONDS = 2.0
"""From this lag on the mirror has missed many cycles of the tailer."""

WRITES: list[Callable[[Service], httpx.Response]] = [
    lambda service: service.post({"username": fresh_name("lost")}),
    lambda service: service.put("one", 1234),
    lambda service: service.put("two", 1501),
    lambda service: service.put("three", 1234, If_Match='"v1"'),
    lambda service: service.put("nobody", 1234),
]
"""A creation, a new rating, an equal one, one with a condition, and one of nobody."""
READS: list[Callable[[Service], httpx.Response]] = [
    lambda service: service.get("/users/nobody"),
    lambda service: service.get("/users/search?username=one"),
]
"""Reads that only Postgres could answer."""


@pytest.fixture(scope="module")
def door(fresh_database: str) -> Iterator[Door]:
    """The only way to Postgres for the service."""
    with door_to(fresh_database) as opened:
        yield opened


@pytest.fixture(scope="module")
def cut(stores: Stores, fresh_database: str, door: Door) -> Iterator[Service]:
    """A service that has a full mirror and has read no page yet when it loses Postgres."""
    with redis.Redis.from_url(stores.redis_url) as client:
        try:
            with serving(door.url, stores.redis_url) as running:
                for number, name in enumerate(["one", "two", "three", "four"]):
                    running.created(name, id=name, rating=1501 - number // 2)
                wait_until(lambda: running.get("/users/one").headers["x-rank-source"] == "redis")
                wait_until(lambda: _equal(fresh_database, stores.redis_url))
                door.shut()
                wait_until(lambda: running.get("/health").json()["postgres"]["status"] == "down")
                yield running
        finally:
            client.flushdb()


def _equal(database_url: str, redis_url: str) -> bool:
    settings = Settings(database_url=database_url, redis_url=redis_url)
    return ledger_board(settings) == mirror_board(settings)[:2]


def timed(call: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer, which must come soon."""
    begun = time.monotonic()
    answer = call()

    assert time.monotonic() - begun < HANG_SECONDS
    return answer


@pytest.mark.parametrize(
    ("user_id", "rank", "position"), [("one", 1, 1), ("two", 1, 2), ("four", 3, 3), ("three", 3, 4)]
)
def test_a_user_in_the_mirror_is_served(cut: Service, user_id: str, rank: int, position: int) -> None:
    """With the rank that they had when Postgres was last there; ties are by name, so `four` is before `three`."""
    answer = timed(lambda: cut.get(f"/users/{user_id}"))

    assert 200 == answer.status_code
    assert (user_id, rank, position) == tuple(answer.json()[field] for field in ("username", "rank", "position"))
    assert_ranked_by("redis", answer.headers)


def test_the_board_is_served(cut: Service) -> None:
    """By offset and by cursor, also by a service that had read no page before."""
    first = timed(lambda: cut.get("/leaderboard?limit=2"))
    assert 200 == first.status_code, first.text
    second = timed(lambda: cut.get(f"/leaderboard?limit=2&cursor={first.json()['next_cursor']}"))

    rows = first.json()["items"] + second.json()["items"]
    assert [("one", 1), ("two", 1), ("four", 3), ("three", 3)] == [(row["username"], row["rank"]) for row in rows]
    assert [ROW] * 4 == [list(row) for row in rows]
    assert_ranked_by("redis", first.headers)


def test_tags_work_without_postgres(cut: Service) -> None:
    tag = cut.get("/users/one").headers["etag"]

    assert 304 == cut.get("/users/one", If_None_Match=tag).status_code


@pytest.mark.parametrize("target", ["/users/one", "/leaderboard"])
def test_stale_answers_say_so(cut: Service, target: str) -> None:
    """The lag is told, and from a few cycles of the tailer on it is called stale."""
    wait_until(lambda: int(cut.get("/users/one").headers["x-mirror-lag-ms"]) > STALE_SECONDS * 1000)
    answer = cut.get(target)

    assert (200, "true") == (answer.status_code, answer.headers.get("x-data-stale"))


def test_what_needs_postgres_is_refused_soon(cut: Service, fresh_database: str) -> None:
    """503, not 404 or an empty list; when to come again; and nothing is written, in neither store."""
    settings = Settings(database_url=fresh_database, redis_url=cut.settings.redis_url)
    before = ledger_board(settings), mirror_board(settings)
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda call: timed(functools.partial(call, cut)), WRITES + READS))

    for answer in answers:
        assert_problem(answer, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert [True] == ["Postgres" in str(line.get("reason")) for line in cut.logged(answer.headers["x-request-id"])]
    assert before == (ledger_board(settings), mirror_board(settings))


def test_many_at_once_do_not_wait_for_each_other(cut: Service) -> None:
    """A queue before a store that is away would grow until everybody hangs."""
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: timed(lambda: cut.put("one", 1234)), range(40)))

    assert {503} == {answer.status_code for answer in answers}


def test_refusals_need_no_postgres(cut: Service) -> None:
    """What is wrong with a request is wrong all the same."""
    assert_problem(timed(lambda: cut.put("one", 99)), "validation", "rating")
    assert_problem(timed(lambda: cut.post({"username": "x"})), "validation", "username")
    assert_problem(timed(lambda: cut.get("/nowhere")), "not-found")
    assert 415 == cut.raw(request("POST", "/users", [("Content-Type", "text/plain")], b"{}")).status


def test_health_is_degraded_without_postgres(cut: Service) -> None:
    """200, because reads are served."""
    answer = timed(lambda: cut.get("/health"))
    health = answer.json()

    assert (200, "degraded") == (answer.status_code, health["status"])
    assert ("down", "up") == (health["postgres"]["status"], health["redis"]["status"])
    assert health["mirror"]["ready"] is True
    assert 200 == timed(lambda: cut.get("/health/ready")).status_code
    assert 200 == timed(lambda: cut.get("/health/live")).status_code


def test_readiness_is_told_at_once(cut: Service) -> None:
    """Those who probe it wait a second by default: one store that serves is enough, and is not to be waited past."""
    begun = time.monotonic()
    answer = cut.get("/health/ready")

    assert 200 == answer.status_code
    assert time.monotonic() - begun < PROBE_SECONDS


@pytest.fixture
def healed(cut: Service, door: Door) -> Iterator[Service]:
    """The same service with Postgres back, for one test."""
    door.open()
    try:
        wait_until(lambda: cut.get("/health").json()["status"] == "ok")
        wait_until(lambda: cut.put("one", 1501).status_code == 200)
        yield cut
    finally:
        door.shut()
        wait_until(lambda: cut.get("/health").json()["postgres"]["status"] == "down")


def test_it_passes_by_itself(healed: Service) -> None:
    """As soon as Postgres lets it in the service writes again, and its mirror takes part."""
    created = healed.post({"username": fresh_name("back"), "rating": 100})

    assert (201, "applied") == (created.status_code, created.headers["x-mirror-write"])


def test_a_hung_postgres_is_not_waited_for(healed: Service, door: Door) -> None:
    """It takes what it is sent and answers nothing: whoever needs it is told so, soon; the others are served."""
    low = healed.created(fresh_name("low"), rating=100)
    with door.hanging(), ThreadPoolExecutor() as pool:
        creation = pool.submit(timed, lambda: healed.post({"username": "late", "rating": 100}))
        change = pool.submit(timed, lambda: healed.put(str(low["id"]), 101))
        reads = [pool.submit(timed, functools.partial(call, healed)) for call in READS]
        served = [timed(functools.partial(healed.get, target)) for target in ("/users/one", "/health", "/health/ready")]

        assert {503} == {call.result().status_code for call in (creation, change, *reads)}
        assert {200} == {answer.status_code for answer in served}
    # What is called unavailable was not carried out and will not be; of the others nobody can tell.
    wait_until(lambda: healed.get("/users/search?username=low").status_code == 200)
    if change.result().json()["type"] == "/problems/unavailable":
        assert 100 == healed.get(f"/users/{low['id']}").json()["rating"]
    if creation.result().json()["type"] == "/problems/unavailable":
        assert [] == healed.get("/users/search?username=late").json()["items"]
