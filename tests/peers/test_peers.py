"""
Defects that were seen in other leaderboards when they were run, each as what is true here instead.

Nakama 3.40 (ranks in memory beside Postgres), Podium (scores in Redis), leaderboard-python 3.7 and redis-rank 2.2
(libraries over a sorted set). Not here: redis-rank's limit on a board's length, which keeps too many or the wrong ones
when low scores lead, because this board is never cut; and Podium's seasons that end, because a board here does not.
"""

from __future__ import annotations

import random
import tomllib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import redis

from tests.api.serving import ROOT, Service, serving, wait_until
from tests.api.shapes import assert_problem
from tests.conftest import Stores
from tests.guard.metered import metered
from tests.ranking.model import board
from tests.servers.own_redis import own_redis

LOADED = 10_000
PAUSE_SECONDS = 0.15


@pytest.fixture(autouse=True)
def _nobody(service: Service) -> None:
    """Each test begins with an empty board."""
    service.execute("DELETE FROM users")
    wait_until(service.is_mirrored)


def people(service: Service, **ratings: int) -> None:
    """Create users who are called as their ids are."""
    for name, rating in ratings.items():
        service.created(name, id=name, rating=rating)


def ranks(answer: Any) -> dict[str, int]:
    """Rank by id."""
    assert 200 == answer.status_code, answer.text
    return {row["id"]: row["rank"] for row in answer.json()["items"]}


def test_no_rank_is_wrong_while_the_board_is_loaded(database_url: str) -> None:
    """Nakama counts the ranks that it has read so far, for ten seconds after a restart, with 200."""
    with own_redis() as server:
        server.start()
        with serving(database_url, server.url, failpoints=f"load_mid=sleep:{PAUSE_SECONDS}") as running:
            running.execute(
                "INSERT INTO users (id, username, rating) SELECT 'u' || n, 'name' || n, 100 + n % 4900"
                f" FROM generate_series(1, {LOADED}) n"
            )
            wait_until(running.is_mirrored)
            expected = {row.id: row for row in board(running.rows())[:: LOADED // 7]}
            server.flush()
            seen = set()
            while True:
                for user_id, row in expected.items():
                    answer = running.get(f"/users/{user_id}/rank")
                    told = answer.json()
                    assert (row.rank, row.position, LOADED) == (told["rank"], told["position"], told["total"])
                    seen.add(answer.headers["x-rank-source"])
                if "redis" in seen and running.is_mirrored():
                    break
            assert 2 <= len(running.at_failpoint("load_mid"))

    assert "postgres" in seen


def test_a_rating_changed_by_hand_in_sql_is_the_same_on_every_route(service: Service) -> None:
    """Nakama lists such a player first, and ranks them as before until it is restarted."""
    people(service, alice=3000, bob=2000, carol=1000)
    service.execute("UPDATE users SET rating = 4000 WHERE id = 'carol'")
    wait_until(service.is_mirrored)

    assert {"carol": 1, "alice": 2, "bob": 3} == ranks(service.get("/leaderboard"))
    assert {"carol": 1, "alice": 2, "bob": 3} == ranks(service.get("/users/carol/neighbors?radius=1"))
    assert 1 == service.get("/users/carol/rank").json()["rank"] == service.get("/users/carol").json()["rank"]


def test_ranks_behind_a_cursor_are_those_of_their_own_read(service: Service) -> None:
    """Nakama carries the rank in the cursor: whoever rose meanwhile is not counted."""
    people(service, alice=5000, bob=4000, carol=3000, dave=2000, erin=1000)
    page = service.get("/leaderboard?limit=2")
    service.put("erin", 5000)

    assert {"alice": 1, "bob": 2} == ranks(page)
    following = service.get(f"/leaderboard?limit=2&cursor={page.json()['next_cursor']}")
    assert {"carol": 4, "dave": 5} == ranks(following)


def test_every_write_tells_the_rank(service: Service) -> None:
    """Nakama's boards that were made without an option tell none; and it answers a negative score with an error of its own."""
    people(service, alice=3000, bob=2000)

    assert 2 == service.post({"username": "carol", "id": "carol", "rating": 2500}).json()["rank"]
    assert 1 == service.put("bob", 4000).json()["rank"]
    assert 3 == service.client.patch("/users/carol/rating", json={"delta": -100}).json()["rank"]
    assert 2 == service.client.patch("/users/alice", json={"username": "alicia"}).json()["rank"]
    told = service.client.put("/ratings", json={"updates": [{"id": "carol", "rating": 4500}]})
    assert [1] == [item["rank"] for item in told.json()["items"]]
    assert_problem(service.put("bob", -5), "validation", "rating")


def test_rating_and_rank_of_a_write_are_of_one_moment(database_url: str) -> None:
    """Podium writes, reads the score and counts the rank in calls of their own, with others' writes in between."""
    others = {f"other{number}": 500 + 400 * number for number in range(10)}
    with own_redis() as server:
        server.start()
        with serving(database_url, server.url, workers=2) as running:
            wait_until(running.is_mirrored)
            people(running, mover=100, **others)

            def write(seed: int) -> list[tuple[int, int]]:
                dice, told = random.Random(seed), []
                # A client each, because a connection is one process's.
                with httpx.Client(base_url=running.client.base_url, timeout=10, trust_env=False) as client:
                    for _ in range(40):
                        answer = client.put("/users/mover/rating", json={"rating": dice.randint(100, 5000)}).json()
                        told.append((answer["rating"], answer["rank"]))
                return told

            with ThreadPoolExecutor(8) as pool:
                answers = [answer for told in pool.map(write, range(8)) for answer in told]

    assert [1 + sum(other > rating for other in others.values()) for rating, _ in answers] == [
        rank for _, rank in answers
    ]


def test_a_hundred_users_are_one_round_trip(stores: Stores) -> None:
    """Podium makes two hundred, one after the other, and twelve milliseconds of them."""
    with own_redis() as server:
        server.start()
        with metered(stores, server.url) as at:
            asked = {"user_ids": [f"id-{number}" for number in range(1, 101)]}
            with at.counting() as (to_redis, to_postgres):
                assert 100 == len(at.service.post(asked, "/ranks").json()["items"])

    assert (1, 0) == (len(to_redis.trips), len(to_postgres.trips))


@pytest.mark.parametrize("rating", [20.9, 1500.0, 2**53 + 1, -1, 99, 5001, "1500", None, True])
def test_what_is_no_rating_is_refused_and_not_rounded(service: Service, rating: object) -> None:
    """Podium stores 20 for 20.9, and 2^53 for 2^53 + 1, and says 200."""
    people(service, alice=3000)

    assert_problem(service.put("alice", rating), "validation", "rating")
    assert 3000 == service.get("/users/alice").json()["rating"]


def test_a_refused_write_leaves_nothing_behind(service: Service) -> None:
    """Podium answers an error to a score of a season that is over, keeps it, and keeps it for ever."""
    people(service, alice=3000, bob=2000)
    with redis.Redis.from_url(service.settings.redis_url, protocol=2) as client:
        before = client.zrange("{ladder}:board", 0, -1, withscores=True), client.hgetall("{ladder}:users")
        keys = set(client.keys("*"))
        assert_problem(service.put("alice", 1000, if_match='"v999999"'), "precondition-failed")
        assert_problem(service.put("nobody", 1000), "not-found")
        assert_problem(service.post({"username": "ALICE", "id": "carol"}), "username-taken")
        assert_problem(service.client.patch("/users/bob/rating", json={"delta": 4000}), "rating-out-of-range")

        assert before == (client.zrange("{ladder}:board", 0, -1, withscores=True), client.hgetall("{ladder}:users"))
        assert keys == set(client.keys("*"))
        assert all(client.ttl(key) > 0 for key in client.keys("user:*"))
    assert {"alice": 3000, "bob": 2000} == {user.id: user.rating for user in service.rows().values()}


def test_around_the_last_are_the_last(service: Service) -> None:
    """Podium shows the first of the board around somebody near its lower end."""
    people(service, **{f"user{number:02}": 100 + number for number in range(30)})

    assert ["user04", "user03", "user02", "user01", "user00"] == list(
        ranks(service.get("/users/user00/neighbors?radius=2"))
    )


def test_a_user_who_is_deleted_leaves_no_key(service: Service) -> None:
    """Podium's deletion leaves a key beside the board; here only the version stays, so that no late write revives them."""
    people(service, alice=3000)
    assert 200 == service.get("/users/alice").status_code
    assert 204 == service.client.delete("/users/alice").status_code

    with redis.Redis.from_url(service.settings.redis_url, protocol=2) as client:
        assert [] == client.keys("*alice*")
        assert 0 == client.zcard("{ladder}:board")
        assert client.hget("{ladder}:users", "alice").endswith(b"|")
    assert_problem(service.get("/users/alice/rank"), "not-found")


@pytest.mark.parametrize("limit", [-1, 0, 1001])
def test_a_page_of_no_size_is_refused(service: Service, limit: int) -> None:
    """Podium answers 200 with an empty list."""
    assert_problem(service.get(f"/leaderboard?limit={limit}"), "validation", "limit")


def test_one_who_is_not_there_does_not_fail_the_others(service: Service) -> None:
    """In Podium one board that is missing fails the question about all."""
    people(service, alice=3000)
    answer = service.post({"user_ids": ["nobody", "alice"]}, "/ranks")

    assert {"alice": 1} == ranks(answer)
    assert ["nobody"] == answer.json()["not_found"]


def test_equal_ratings_have_equal_percentiles(service: Service) -> None:
    """leaderboard-python gives 60 and 80 to two players of one score, by their places."""
    people(service, a01=1000, b01=2000, c01=3000, d01=3000, e01=4000)

    assert [80.0, 80.0] == [service.get(f"/users/{name}/rank").json()["percentile"] for name in ("c01", "d01")]
    assert 80.0 == service.get("/ratings/3000").json()["percentile"]


def test_who_left_a_tie_does_not_count(service: Service) -> None:
    """leaderboard-python's board of ties remembers a score that nobody has any more: the third is told, who is second."""
    people(service, alice=3000, bob=2000)
    assert 204 == service.client.delete("/users/bob").status_code

    assert 2 == service.post({"username": "carol", "id": "carol", "rating": 1000}).json()["rank"]
    assert 2 == service.get("/users/carol/rank").json()["rank"]
    # And its board of competition ranks raises a TypeError about whoever is missing.
    assert_problem(service.get("/users/bob/rank"), "not-found")


def test_a_drivers_next_major_version_is_not_installed() -> None:
    """leaderboard-python's wheel names no upper bound, gets a Redis client of another century, and fails on its first write."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        needs = tomllib.load(file)["project"]["dependencies"]
    drivers = [need for need in needs if need.startswith(("redis", "hiredis", "psycopg"))]

    assert 4 == len(drivers)
    assert all(",<" in need for need in drivers)
