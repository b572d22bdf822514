"""Hot queries are guarded by their plans, not by a stopwatch: each walks the index that is meant for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from service.store.postgres import QUERIES

USERS = 20_000


@pytest.fixture(scope="module")
def connection(stores: Any) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A database of 20,000 users, 500 to a rating, whose statistics the planner knows."""
    name = stores.create(stores.template)
    with psycopg.connect(stores.url(name), autocommit=True) as session:
        session.execute(
            "INSERT INTO users (id, username, rating)"
            " SELECT md5(n::text), 'player-' || n, 1500 + n %% 40 FROM generate_series(1, %s) n",
            (USERS,),
        )
        session.execute("VACUUM ANALYZE users")
        yield session
    stores.drop(name)


@pytest.mark.parametrize(
    ("query", "parameters", "indexes"),
    [
        ("users", {"ids": ["a", "b"]}, {"users_pkey"}),
        ("clashes", {"ids": ["a"], "names": ["b"]}, {"users_pkey", "idx_users_username_lower"}),
        ("rate", {"ids": ["a"], "ratings": [1], "relative": [False], "wanted": [None]}, {"users_pkey"}),
        ("rename", {"id": "a", "username": "b", "wanted": None}, {"users_pkey"}),
        ("remove", {"ids": ["a"], "wanted": [None]}, {"users_pkey"}),
        ("search", {"prefix": "player-77", "last": "player-77~", "limit": 20}, {"idx_users_username_lower"}),
        ("slice_at", {"limit": 10, "offset": 50}, {"idx_users_rating_username"}),
        ("slice_after", {"limit": 10, "rating": 1520, "username": "player-9"}, {"idx_users_rating_username"}),
        ("standings", {"ids": ["a"]}, {"users_pkey", "idx_users_rating_username"}),
        ("places", {"ids": ["a"], "snapshot": "1:1:"}, {"users_pkey", "idx_users_rating_username"}),
        ("inspect", {"ids": ["a", "b"]}, {"users_pkey"}),
        ("present", {"ids": ["a", "b"]}, {"Index Only Scan using users_pkey"}),
        ("rows", {"first": "(2,0)", "last": "(22,0)"}, {"Tid Range Scan on users"}),
        ("changes", {"xact": "999999", "id": "", "limit": 1000}, {"idx_users_xact", "idx_user_tombstones_xact"}),
        ("unsettled", {"xact": "1", "id": "", "limit": 1000}, {"idx_users_xact", "idx_user_tombstones_xact"}),
    ],
)
def test_the_query_walks_its_index(
    connection: psycopg.Connection[tuple[Any, ...]], query: str, parameters: dict[str, Any], indexes: set[str]
) -> None:
    # The tombstones are empty here; an empty table is always scanned whole.
    connection.execute("SET enable_seqscan = off" if query in ("changes", "unsettled") else "RESET enable_seqscan")
    plan = "\n".join(row[0] for row in connection.execute("EXPLAIN " + QUERIES[query], parameters).fetchall())

    assert indexes <= {name for name in indexes if name in plan}, plan
    if query not in ("slice_at", "slice_after"):  # both count the whole board: that is what the mirror is for
        assert "Seq Scan on users" not in plan


def test_a_page_after_a_point_does_not_walk_the_tie(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """The rows of a page in the middle of a tie of 500 are found without reading the tie up to there."""
    plan = connection.execute(
        "EXPLAIN (ANALYZE, TIMING off, FORMAT json) SELECT id FROM users"
        " WHERE rating = 1520 AND username > 'player-5' ORDER BY username LIMIT 10"
    ).fetchall()[0][0]
    scan = plan[0]["Plan"]["Plans"][0]

    assert "idx_users_rating_username" == scan["Index Name"]
    assert 0 == scan.get("Rows Removed by Filter", 0)
