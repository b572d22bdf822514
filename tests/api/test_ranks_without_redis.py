"""Ranks, neighbours, lists and histograms while Redis is away: right, in time, and equal to those it gives."""

from __future__ import annotations

import time

from service.ranking.fallback import EXACT_USERS
from tests.conftest import Stores
from tests.ranking.model import board
from tests.servers.own_redis import own_redis

from .serving import Service, serving, wait_until
from .shapes import assert_problem, assert_ranked_by, wire_row

PATIENCE_SECONDS = 1.5
"""Within which each is answered: a store that is away must not be waited for."""
TARGETS = ["/users/u1/rank", "/users/u1/neighbors?radius=2", "/ratings/1500", "/ratings/distribution"]


def answers(service: Service, source: str) -> list[object]:
    """What every one of these reads says, asserted to be ranked by that store."""
    found = [service.get(target) for target in TARGETS]
    found.append(service.post({"user_ids": ["u3", "nobody", "u1"]}, "/ranks"))
    for answer in found:
        assert 200 == answer.status_code, answer.text
        assert_ranked_by(source, answer.headers)
    return [answer.json() for answer in found]


def test_the_answers_are_the_same_with_and_without_redis(database_url: str) -> None:
    """An empty board too, whose percentile and quantiles are nobody's; Redis is not there, comes, and goes."""
    with own_redis() as server, serving(database_url, server.url) as running:
        empty = [running.get(target).json() for target in TARGETS[2:]]
        server.start()
        wait_until(running.is_mirrored)
        assert empty == [running.get(target).json() for target in TARGETS[2:]]
        assert {"rating": 1500, "rank": 1, "percentile": None, "users": 0} == empty[0]
        assert {"p10": None, "p50": None, "p90": None, "p99": None} == empty[1]["quantiles"]
        assert {0} == {empty[1]["total"], *(bucket["users"] for bucket in empty[1]["buckets"])}

        for number in range(8):
            running.created(f"user{number}", id=f"u{number}", rating=1500 + number % 3)
        wait_until(running.is_mirrored)
        mirrored = answers(running, "redis")
        rows = [wire_row(row) for row in board(running.rows())]
        listed = [row for user_id in ("u3", "u1") for row in rows if row["id"] == user_id]
        assert {"items": listed, "not_found": ["nobody"]} == mirrored[-1]

        server.kill()
        begun = time.monotonic()
        assert mirrored == answers(running, "postgres")
        assert_problem(running.get("/users/nobody/rank"), "not-found")
        assert_problem(running.get("/users/nobody/neighbors"), "not-found")
        assert time.monotonic() - begun < PATIENCE_SECONDS * (len(TARGETS) + 3)
        assert [] == running.defects()


def test_a_big_board_is_ranked_by_the_histogram_without_redis(stores: Stores) -> None:
    """Rank, percentile and distribution are of one count of late and say of when; windows and lists are exact."""
    name = stores.create(stores.template)
    with own_redis() as server, serving(stores.url(name), server.url) as running:
        running.execute(
            "INSERT INTO users (id, username, rating) SELECT 'u' || n, 'Player' || n, 1000 + n % 7"
            f" FROM generate_series(1, {EXACT_USERS + 1}) AS n"
        )
        # The service may have counted before they were there.
        wait_until(lambda: running.get(TARGETS[2]).headers["x-rank-source"] == "histogram")
        of_late = [running.get(target) for target in (TARGETS[0], *TARGETS[2:])]
        exact = [running.get(target, cache_control="no-cache") for target in (TARGETS[0], *TARGETS[2:])]

        assert {"histogram"} == {answer.headers["x-rank-source"] for answer in of_late}
        assert all(answer.headers["x-rank-as-of"] for answer in of_late)
        assert {"postgres"} == {answer.headers["x-rank-source"] for answer in exact}
        assert [answer.json() for answer in exact] == [answer.json() for answer in of_late]
        assert "postgres" == running.get(TARGETS[1]).headers["x-rank-source"]
        assert "postgres" == running.post({"user_ids": ["u3"]}, "/ranks").headers["x-rank-source"]
    stores.drop(name)
