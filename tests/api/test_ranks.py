"""Where users and ratings stand, over HTTP: a user's rank, the rows around them, a list's rows, the histogram."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import httpx
import msgspec
import pytest

from tests.ranking.model import board

from .serving import Service, wait_until
from .shapes import ROW, assert_problem, assert_ranked_by, wire_row
from .wire import request

USERS = 600
RANK = ["id", "rating", "rank", "position", "total", "percentile"]
JSON = ("Content-Type", "application/json")
ASKS: dict[str, Callable[[Service], httpx.Response]] = {
    "rank": lambda service: service.get("/users/id:5/rank"),
    "neighbors": lambda service: service.get("/users/id:5/neighbors"),
    "list": lambda service: service.post({"user_ids": ["id:5"]}, "/ranks"),
    "rating": lambda service: service.get("/ratings/1500"),
    "distribution": lambda service: service.get("/ratings/distribution"),
}


@pytest.fixture(scope="module", autouse=True)
def _people(service: Service) -> None:
    """A long tie in the middle, one at each end, and lonely ratings."""
    service.execute(
        "INSERT INTO users (id, username, rating) SELECT 'id:' || n, 'Player' || n, CASE"
        " WHEN n % 5 = 0 THEN 1500 WHEN n % 97 = 0 THEN 5000 WHEN n % 89 = 0 THEN 100 ELSE 100 + n * 97 % 4901 END"
        f" FROM generate_series(1, {USERS}) AS n"
    )
    wait_until(service.is_mirrored)


def expected(service: Service) -> list[dict[str, object]]:
    """The whole board as the wire should show it."""
    return [wire_row(row) for row in board(service.rows())]


def shown(answer: httpx.Response) -> dict[str, object]:
    """The body of an answer that Redis ranked."""
    assert 200 == answer.status_code, answer.text
    assert "application/json" == answer.headers["content-type"]
    assert_ranked_by("redis", answer.headers)
    body: dict[str, object] = answer.json()
    return body


def test_every_read_shows_the_same_rank_of_everybody(service: Service) -> None:
    """One tie rule on every endpoint: for each member of the ties, and equal ratings have equal percentiles."""
    rows = expected(service)
    listed = shown(service.post({"user_ids": [row["id"] for row in rows]}, "/ranks"))
    assert {"items": rows, "not_found": []} == listed
    for row in rows[::7]:
        rank = shown(service.get(f"/users/{row['id']}/rank"))
        rating = shown(service.get(f"/ratings/{row['rating']}"))
        lower = sum(int(str(other["rating"])) <= int(str(row["rating"])) for other in rows)

        assert RANK == list(rank)
        assert {**row, "total": USERS, "percentile": round(100 * lower / USERS, 2)} == {
            "username": row["username"],
            **rank,
        }
        assert ["rating", "rank", "percentile", "users"] == list(rating)
        assert (row["rank"], rank["percentile"]) == (rating["rank"], rating["percentile"])
        assert sum(other["rating"] == row["rating"] for other in rows) == rating["users"]
        assert row["rank"] == service.get(f"/users/{row['id']}").json()["rank"]


@pytest.mark.parametrize("radius", [None, 1, 5, 100])
@pytest.mark.parametrize("place", [0, 1, 4, 5, 300, USERS - 6, USERS - 2, USERS - 1])
def test_a_window_is_full_at_both_ends(service: Service, place: int, radius: int | None) -> None:
    """The user in the middle, and where the board ends more rows on the other side; peers answer fewer, or others."""
    rows, size = expected(service), 2 * (radius or 5) + 1
    target = f"/users/{rows[place]['id']}/neighbors" + (f"?radius={radius}" if radius else "")
    items = shown(service.get(target))["items"]
    first = max(0, min(place - size // 2, USERS - size))

    assert isinstance(items, list)
    assert all(ROW == list(row) for row in items)
    assert rows[first : first + size] == items


def test_a_list_is_answered_in_the_order_asked(service: Service) -> None:
    """With those who are nobody beside it, in their order; the reserved id is nobody's."""
    rows = {str(row["id"]): row for row in expected(service)}
    asked = ["id:9", "nobody", "id:5", "search", "id:10", "ID:9", "id:100"]
    answer = shown(service.post({"user_ids": asked}, "/ranks"))

    assert ["items", "not_found"] == list(answer)
    assert [rows[user_id] for user_id in asked if user_id in rows] == answer["items"]
    assert ["nobody", "search", "ID:9"] == answer["not_found"]


def test_a_thousand_long_ids_may_be_asked_for(service: Service) -> None:
    """Their body is larger than others may be; the limit of all other routes stays."""
    ids = [f"{number:064}" for number in range(1000)]

    assert ids == shown(service.post({"user_ids": ids}, "/ranks"))["not_found"]
    assert 200 == service.raw(request("POST", "/ranks", [JSON], b'{"user_ids":["a"]}'.ljust(1024 * 1024))).status
    assert_problem(service.raw(request("POST", "/ranks", [JSON], b" " * (1024 * 1024 + 1))), "too-large")
    assert_problem(service.raw(request("POST", "/users", [JSON], b" " * (64 * 1024 + 1))), "too-large")


@pytest.mark.parametrize(
    "body",
    [
        *(b"{}", b"[]", b"null", b'{"user_ids":null}', b'{"user_ids":"id:5"}', b'{"user_ids":{}}', b'{"user_ids":[]}'),
        *(b'{"user_ids":[%b]}' % value for value in (b"1", b"null", b'""', b'"a b"', b'"a\\n"', b'["a"]', b'"\xc3\xa9"')),
        b'{"user_ids":["%b"]}' % (b"a" * 65),
        b'{"user_ids":["id:5","id:6","id:5"]}',
        b'{"user_ids":["id:5"],"limit":1}',
        b'{"ids":["id:5"]}',
        b'{"user_ids":[%b]}' % b",".join(b'"%d"' % number for number in range(1001)),
        *(b"", b'{"user_ids":["id:5"]', b'{"user_ids":["\xff"]}'),
    ],
)  # fmt: skip
def test_what_is_no_list_is_refused(service: Service, body: bytes) -> None:
    """Duplicates too: they would have to be told twice, or left out."""
    answer = service.raw(request("POST", "/ranks", [JSON], body))

    assert_problem(answer, "validation")
    if body.startswith(b'{"user_ids":') and b"limit" not in body and body.endswith(b"}") and b"\xff" not in body:
        (error,) = msgspec.json.decode(answer.body)["errors"]
        assert re.fullmatch(r"user_ids(\[\d+\])?", error["field"])


@pytest.mark.parametrize(
    ("target", "field"),
    [
        *((f"/users/id:5/neighbors?radius={text}", "radius") for text in ("0", "101", "-1", "1.0", "5e0", "", "x", "05")),
        *((f"/ratings/distribution?width={text}", "width") for text in ("0", "1001", "-1", "1.5", "", "x", "%2B5")),
        *((f"/ratings/{text}", "rating") for text in ("99", "5001", "1500.0", "-100", "x", "0100", "1e3", "%20100")),
        ("/users/id:5/neighbors?radius=5&radius=5", "radius"),
        ("/ratings/distribution?width=50&width=50", "width"),
        ("/users/id:5/rank?radius=5", "radius"),
        ("/ratings/1500?width=50", "width"),
        ("/ratings/distribution?radius=5", "radius"),
        ("/users/a%20b/rank", "id"),
        ("/users/a%20b/neighbors", "id"),
    ],
)  # fmt: skip
def test_a_parameter_that_is_none_is_refused(service: Service, target: str, field: str) -> None:
    """Never coerced, never clamped."""
    assert_problem(service.get(target), "validation", field)


@pytest.mark.parametrize("target", ["/users/nobody/rank", "/users/nobody/neighbors", "/users/search/rank"])
def test_what_is_not_there_is_not_found(service: Service, target: str) -> None:
    """The reserved id leads nowhere, as it does elsewhere."""
    assert_problem(service.get(target), "not-found")


@pytest.mark.parametrize("width", [1, 7, 10, 50, 100, 999, 1000])
def test_the_histogram_is_exact_and_has_no_gaps(service: Service, width: int) -> None:
    """From 100 to 5000, both ends included, empty buckets too; it sums to the total, whichever store counted."""
    held = [int(str(row["rating"])) for row in expected(service)]
    answer = service.get(f"/ratings/distribution?width={width}")
    body = answer.json()
    buckets = body["buckets"]

    assert ["total", "buckets", "quantiles"] == list(body)
    assert all(["from", "to", "users"] == list(bucket) for bucket in buckets)
    assert (100, 5000) == (buckets[0]["from"], buckets[-1]["to"])
    assert all(one["to"] + 1 == other["from"] for one, other in pairwise(buckets))
    assert {width} >= {bucket["to"] - bucket["from"] + 1 for bucket in buckets[:-1]}
    assert [sum(bucket["from"] <= one <= bucket["to"] for one in held) for bucket in buckets] == [
        bucket["users"] for bucket in buckets
    ]
    assert USERS == body["total"] == sum(bucket["users"] for bucket in buckets)
    quantiles = [
        next(rating for rating in sorted(held) if 100 * sum(one <= rating for one in held) >= percent * USERS)
        for percent in (10, 50, 90, 99)
    ]
    assert dict(zip(("p10", "p50", "p90", "p99"), quantiles, strict=True)) == body["quantiles"]
    assert_ranked_by("postgres" if width < 10 else "redis", answer.headers)


def test_answers_are_live(service: Service) -> None:
    """A change is in the next answer of each, and a token of it is honoured."""
    service.created("Mover", id="mover", rating=4711)
    try:
        before = service.get("/ratings/4712").json()["users"]
        token = service.put("mover", 4712).headers["x-consistency-token"]
        told = {"x_consistency_token": token}

        assert before + 1 == service.get("/ratings/4712", **told).json()["users"]
        assert 4712 == service.get("/users/mover/rank", **told).json()["rating"]
        assert 4712 == service.post({"user_ids": ["mover"]}, "/ranks", **told).json()["items"][0]["rating"]
        window = service.get("/users/mover/neighbors", **told).json()["items"]
        assert ["mover"] == [row["id"] for row in window if row["rating"] == 4712 and row["username"] == "Mover"]
        spread = service.get("/ratings/distribution?width=1000", **told).json()
        assert USERS + 1 == spread["total"]
    finally:
        service.execute("DELETE FROM users WHERE id = 'mover'")
        wait_until(service.is_mirrored)


@pytest.mark.parametrize("ask", ASKS)
def test_a_token_of_a_write_that_the_mirror_lacks_is_answered_by_postgres(service: Service, ask: str) -> None:
    """Never from before that write; and one that is no token is refused."""
    service.client.headers["X-Consistency-Token"] = "id:5:99999999999999"
    try:
        answer = ASKS[ask](service)
        assert 200 == answer.status_code
        assert_ranked_by("postgres", answer.headers)

        service.client.headers["X-Consistency-Token"] = "nonsense"
        assert_problem(ASKS[ask](service), "validation", "X-Consistency-Token")
    finally:
        del service.client.headers["X-Consistency-Token"]


@pytest.mark.parametrize("ask", ASKS)
def test_both_stores_give_equal_answers(service: Service, ask: str) -> None:
    """A token from the future sends the question to Postgres."""
    mirrored = shown(ASKS[ask](service))
    service.client.headers["X-Consistency-Token"] = "id:5:99999999999999"
    try:
        assert mirrored == ASKS[ask](service).json()
    finally:
        del service.client.headers["X-Consistency-Token"]


def test_a_list_is_a_read_and_has_no_other_method(service: Service) -> None:
    """POST, because the list may be long; a GET is told so."""
    answer = service.get("/ranks")

    assert_problem(answer, "method-not-allowed")
    assert "POST" in answer.headers["allow"]
    assert_problem(service.client.post("/ratings/1500", json={}), "method-not-allowed")
    assert_problem(
        service.raw(request("POST", "/ranks", [("Content-Type", "text/plain")], b"{}")), "unsupported-media-type"
    )
