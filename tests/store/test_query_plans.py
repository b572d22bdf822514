"""Hot queries are guarded by their plans, not by a stopwatch: each walks the index that is meant for it, and not far."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import pytest

from service.store.postgres import QUERIES

USERS = 50_000
IDS, NAMES, RATINGS, XACTS = "users_pkey", "idx_users_username_lower", "idx_users_rating_username", "idx_users_xact"
TOMBSTONES = "idx_user_tombstones_xact"
ROWS_EACH = 4
"""Rows that a step of a plan may touch for each that is asked for."""
MANY = [f"user-{number}" for number in range(1, 101)]

Session = psycopg.Connection[tuple[Any, ...]]


class Hot(NamedTuple):
    """What a query is asked, the indexes it must walk, and for how many rows."""

    parameters: dict[str, Any]
    indexes: set[str]
    rows: int


ONE_RATING = {"ids": ["user-7"], "ratings": [1], "relative": [True], "wanted": [None], "patience": None}
MANY_RATINGS = {
    "ids": MANY, "ratings": [1] * 100, "relative": [True] * 100, "wanted": [None] * 100, "patience": None
}  # fmt: skip
HOT = {
    "users of one": Hot({"ids": ["user-7"]}, {IDS}, 1),
    "users": Hot({"ids": MANY}, {IDS}, 100),
    "create": Hot({"ids": ["new"], "usernames": ["New"], "ratings": [1500], "patience": "2s"}, set(), 1),
    "clashes": Hot({"ids": MANY, "names": [f"player-{number}" for number in range(101, 201)]}, {IDS, NAMES}, 200),
    "rate one": Hot(ONE_RATING, {IDS}, 1),
    "rate": Hot(MANY_RATINGS, {IDS}, 100),
    "rate with patience": Hot(MANY_RATINGS | {"patience": "2s"}, {IDS}, 100),
    "rename": Hot({"id": "user-7", "username": "other", "wanted": None}, {IDS}, 1),
    "remove": Hot({"ids": MANY, "wanted": [None] * 100, "patience": None}, {IDS}, 100),
    "remove with patience": Hot({"ids": MANY, "wanted": [None] * 100, "patience": "2s"}, {IDS}, 100),
    "tombstones": Hot({"ids": MANY}, {"user_tombstones_pkey"}, 100),
    "search": Hot({"prefix": "player-1234", "last": "player-1234~", "limit": 20}, {NAMES}, 20),
    "search of all": Hot({"prefix": "p", "last": "p~", "limit": 20}, {NAMES}, 20),
    "claim": Hot({"key": "key-7", "request": b"", "patience": "2s"}, set(), 1),
    "kept": Hot({"key": "key-7"}, {"idempotency_keys_pkey"}, 1),
    "keep": Hot({"key": "key-7", "request": b"x", "outcome": b"", "settled": True}, {"idempotency_keys_pkey"}, 1),
    "forget": Hot({"limit": 50}, {"idx_idempotency_keys_created_at"}, 50),
    "cursor_key": Hot({}, set(), 1),
    "past": Hot({"ids": ["user-7"], "days": [30]}, {IDS, "rating_history_pkey"}, 30),
    "inspect": Hot({"ids": MANY}, {IDS}, 100),
    "present": Hot({"ids": MANY}, {IDS}, 100),
    "rows": Hot({"first": "(2,0)", "last": "(4,0)"}, set(), 300),
    "rows_in_order": Hot({"first": "(2,0)", "last": "(4,0)"}, set(), 300),
    "changes": Hot({"xact": "1", "id": "", "limit": 50}, {XACTS, TOMBSTONES}, 50),
    "changes at the end": Hot({"xact": "9999999", "id": "", "limit": 1000}, {XACTS, TOMBSTONES}, 1),
    "unsettled": Hot({"xact": "1", "id": "", "limit": 1000}, {XACTS, TOMBSTONES}, 1),
    "clock": Hot({}, {XACTS, TOMBSTONES}, 1),
    "rebase_users": Hot({"limit": 50}, {XACTS}, 50),
    "rebase_tombstones": Hot({"limit": 50}, {TOMBSTONES}, 50),
    "places": Hot({"ids": ["user-7"], "snapshot": "1:1:"}, {IDS, RATINGS}, USERS // 40),
}
ONE_ROW = {"secrets", "history"}
"""Tables of one row."""
COUNTING = {
    "standings": Hot({"ids": ["user-7"]}, {IDS, "idx_users_rating"}, USERS),
    "slice_at": Hot({"limit": 10, "offset": 50}, {RATINGS}, USERS),
    "slice_after": Hot({"limit": 10, "rating": 1520, "username": "player-9"}, {RATINGS}, USERS),
    "neighbors": Hot({"id": "user-7", "radius": 5}, {IDS, RATINGS}, USERS),
}
"""The mirror's questions, which Postgres answers while there is none: the users above or the whole board are counted."""
COUNTING_ALL = {"standings_of_many", "rows_of", "histogram"}
"""Each of them counts the board once by rating."""
TRIFLES = {
    *("rename_patience", "ping", "source", "adopt", "disown", "origin", "heap", "try_lock", "unlock", "foreign"),
    *("holder", "elsewhere", "is_empty", "count"),
}
"""These read at most one user, or are asked by an operator's command: `foreign` after a restore, `count` before a question."""


@pytest.fixture(scope="module")
def connection(stores: Any) -> Iterator[Session]:
    """50,000 users, 1,250 to a rating, as many tombstones and keys; the planner knows their statistics."""
    name = stores.create(stores.template)
    with psycopg.connect(stores.url(name), autocommit=True) as session:
        session.execute(
            "INSERT INTO users (id, username, rating)"
            " SELECT 'user-' || n, 'Player-' || n, 1500 + n %% 40 FROM generate_series(1, %s) n",
            (USERS,),
        )
        session.execute(
            "INSERT INTO user_tombstones (id, version, xact) SELECT 'gone-' || n, n, (3 + n %% 50)::text::xid8"
            " FROM generate_series(1, %s) n",
            (USERS,),
        )
        session.execute(
            "INSERT INTO idempotency_keys (key, request, created_at)"
            " SELECT 'key-' || n, 'x', clock_timestamp() - n * interval '10 seconds' FROM generate_series(1, %s) n",
            (USERS,),
        )
        session.execute(
            "INSERT INTO rating_history (day, rank, position, rating, user_id)"
            " SELECT current_date - n / 500, 1, 1, 1500, 'user-' || n %% 500 FROM generate_series(0, %s) n",
            (USERS - 1,),
        )
        session.execute("VACUUM ANALYZE users, user_tombstones, idempotency_keys, rating_history")
        yield session
    stores.drop(name)


def steps(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's steps, those inside of others too."""
    yield plan
    for inner in plan.get("Plans", []):
        yield from steps(inner)


def carried_out(session: Session, query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a query that was carried out and taken back."""
    with session.transaction(force_rollback=True):
        found = session.execute(f"EXPLAIN (ANALYZE, TIMING off, FORMAT json) {QUERIES[query]}".encode(), parameters)
        ((plans,),) = found.fetchall()
    return list(steps(plans[0]["Plan"]))


def touched(step: dict[str, Any]) -> float:
    """The rows that a step gave out or looked at in vain."""
    in_vain = step.get("Rows Removed by Filter", 0) + step.get("Rows Removed by Index Recheck", 0)
    return float((step["Actual Rows"] + in_vain) * step["Actual Loops"])


@pytest.mark.parametrize("name", [*HOT, *COUNTING])
def test_the_query_walks_its_index_and_not_far(connection: Session, name: str) -> None:
    """No step of it touches more than a few rows for each that is asked for, and none reads the table of users whole."""
    asked = HOT.get(name) or COUNTING[name]
    query = next(known for known in QUERIES if name == known or name.startswith(f"{known} "))
    plan = carried_out(connection, query, asked.parameters)
    walked = {step.get("Index Name") for step in plan}

    assert asked.indexes <= walked, plan
    assert [] == [step for step in plan if touched(step) > ROWS_EACH * asked.rows]
    if name in HOT:
        assert [] == [step for step in plan if step["Node Type"] == "Seq Scan" and step["Relation Name"] not in ONE_ROW]


@pytest.mark.parametrize("query", sorted(COUNTING_ALL))
def test_a_query_that_counts_all_does_so_once(connection: Session, query: str) -> None:
    """By the small index on ratings or the table, and not again for each user."""
    parameters = {} if query == "histogram" else {"ids": MANY}
    whole = [
        step for step in carried_out(connection, query, parameters) if touched(step) / step["Actual Loops"] >= USERS
    ]

    assert [1] == [step["Actual Loops"] for step in whole if "Scan" in step["Node Type"]], whole


def test_every_query_is_of_some_kind() -> None:
    named = {name.split(" ")[0] for name in HOT} | set(COUNTING) | COUNTING_ALL | TRIFLES

    assert set(QUERIES) == named


def test_a_page_after_a_point_does_not_walk_the_tie(connection: Session) -> None:
    """The rows of a page in the middle of a tie of 1,250 are found without reading the tie up to there."""
    plan = carried_out(connection, "slice_after", {"limit": 10, "rating": 1520, "username": "Player-5"})
    limited = [step for step in plan if step.get("Index Name") == RATINGS and touched(step) <= 10]

    assert len(limited) >= 2, plan
