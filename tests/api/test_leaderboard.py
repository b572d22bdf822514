"""GET /leaderboard: pages by offset and by cursor are the board, row by row."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from service.model import Point
from service.ranking.cursor import Cursors
from tests.ranking.model import board

from .serving import Service, wait_until
from .shapes import PAGE, ROW, assert_problem, assert_ranked_by, wire_row

USERS = 1050


@pytest.fixture(scope="module", autouse=True)
def _people(service: Service) -> None:
    """More users than fit on the longest page, with long ties and lonely ratings, typed into Postgres by hand."""
    service.execute(
        "INSERT INTO users (id, username, rating) SELECT 'id:' || n, 'Player' || n,"
        f" CASE WHEN n % 5 = 0 THEN 1500 ELSE 100 + n * 97 % 4901 END FROM generate_series(1, {USERS}) AS n"
    )
    wait_until(service.is_mirrored)


def expected(service: Service) -> list[dict[str, object]]:
    """The whole board as the wire should show it, by the model over what Postgres holds."""
    return [wire_row(row) for row in board(service.rows())]


def page(service: Service, **query: object) -> dict[str, object]:
    """A page, checked for its shape."""
    answer = service.client.get("/leaderboard", params={name: str(value) for name, value in query.items()})
    assert 200 == answer.status_code, answer.text
    shown: dict[str, object] = answer.json()
    assert PAGE == list(shown)
    return shown


def walk(service: Service, **query: object) -> Iterator[list[dict[str, object]]]:
    """The rows of each page, following the cursors until there is none."""
    shown = page(service, **query)
    yield rows_of(shown)
    while cursor := shown["next_cursor"]:
        shown = page(service, limit=query["limit"], cursor=cursor)
        yield rows_of(shown)


def rows_of(shown: dict[str, object]) -> list[dict[str, object]]:
    """The rows of a page, checked for their shape."""
    rows = shown["items"]
    assert isinstance(rows, list)
    assert all(ROW == list(row) for row in rows)
    return rows


def test_the_first_page_is_the_top_hundred(service: Service) -> None:
    """Without parameters: 100 rows from the first, the size of the board, and a cursor to go on with."""
    answer = service.get("/leaderboard")
    shown = answer.json()

    assert 200 == answer.status_code
    assert "application/json" == answer.headers["content-type"]
    assert PAGE == list(shown)
    assert expected(service)[:100] == rows_of(shown)
    assert USERS == shown["total"]
    assert isinstance(shown["next_cursor"], str)
    assert_ranked_by("redis", answer.headers)


@pytest.mark.parametrize(
    ("limit", "offset"),
    [(1, 0), (1000, 0), (100, 0), (10, 3), (1, USERS - 1), (1000, 50), (1000, 51), (7, USERS - 7), (50, USERS - 50)],
)
def test_a_page_by_offset_is_a_slice_of_the_board(service: Service, limit: int, offset: int) -> None:
    """With the rank and the position that its rows have on the whole board; null as the cursor at the end."""
    shown = page(service, limit=limit, offset=offset)

    assert expected(service)[offset : offset + limit] == rows_of(shown)
    assert USERS == shown["total"]
    assert (offset + limit >= USERS) == (shown["next_cursor"] is None)


@pytest.mark.parametrize("offset", [USERS, USERS + 1, 10**6, 2**31, 2**53 - 1])
def test_beyond_the_end_is_nothing(service: Service, offset: int) -> None:
    """Not an error: no rows, the true total, and no cursor."""
    assert {"items": [], "total": USERS, "next_cursor": None} == page(service, offset=offset)


@pytest.mark.parametrize("limit", [50, 99, 350, 1000])
def test_cursors_lead_through_the_whole_board(service: Service, limit: int) -> None:
    """Every row once and in order, whether or not the last page is full; positions run through."""
    pages = list(walk(service, limit=limit))

    assert expected(service) == [row for rows in pages for row in rows]
    assert all(limit == len(rows) for rows in pages[:-1])
    assert pages[-1]


def test_a_cursor_continues_a_page_by_offset(service: Service) -> None:
    assert expected(service)[600:] == [row for rows in walk(service, limit=200, offset=600) for row in rows]


def test_the_limit_may_change_between_pages(service: Service) -> None:
    cursor = page(service, limit=3)["next_cursor"]

    assert expected(service)[3:8] == rows_of(page(service, limit=5, cursor=cursor))
    assert expected(service)[3:103] == rows_of(page(service, cursor=cursor))


@pytest.mark.parametrize(
    ("name", "value"), [("limit", 0), ("limit", 1001), ("limit", -1), ("offset", -1), ("offset", 2**53)]
)
def test_numbers_out_of_range_are_refused(service: Service, name: str, value: int) -> None:
    assert_problem(service.get(f"/leaderboard?{name}={value}"), "validation", name)


@pytest.mark.parametrize("offset", [0, 5])
def test_cursor_and_offset_exclude_each_other(service: Service, offset: int) -> None:
    cursor = page(service, limit=3)["next_cursor"]

    assert_problem(service.get(f"/leaderboard?cursor={cursor}&offset={offset}"), "validation", "offset")


# Cursors that are not ours


def test_a_cursor_is_refused_wherever_a_character_is_changed(service: Service) -> None:
    """It carries an authentication code over all of it."""
    cursor = str(page(service, limit=3)["next_cursor"])
    # Each place once is enough: every character of base64 carries six bits.
    forged = [cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :] for at in range(len(cursor))]

    assert {400} == {service.get(f"/leaderboard?cursor={text}").status_code for text in forged}


def test_a_cursor_is_refused_when_it_is_cut_or_grown(service: Service) -> None:
    """Anywhere: by one character or to nothing, with padding, with more behind or in front."""
    cursor = str(page(service, limit=3)["next_cursor"])
    cut = [cursor[:end] for end in range(len(cursor))] + [cursor[begin:] for begin in range(1, len(cursor))]
    grown = [f"{cursor}{more}" for more in ("A", "AAAA", "=", "==", ".", "%20", "%00", "%0A")] + [f"A{cursor}"]

    assert {400} == {service.get(f"/leaderboard?cursor={text}").status_code for text in cut + grown}


def test_another_spelling_of_a_cursor_is_refused(service: Service) -> None:
    """The last character of base64 may have bits to spare: only the spelling that was given out counts."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    cursors = [str(page(service, limit=limit)["next_cursor"]) for limit in range(1, 41)]
    spare = {len(cursor) % 4: cursor for cursor in cursors}
    others = [cursor[:-1] + letter for cursor in spare.values() for letter in letters if letter != cursor[-1]]

    assert {0, 2, 3} == set(spare)
    assert {400} == {service.get(f"/leaderboard?cursor={text}").status_code for text in others}


@pytest.mark.parametrize("key", [b"", b"another key of another database", b"0" * 32])
def test_a_foreign_cursor_is_refused(service: Service, key: bytes) -> None:
    """One that another ladder's service would accept: right in form, sealed with another key."""
    cursor = Cursors(key).seal(Point(1500, "Player5"))

    assert_problem(service.get(f"/leaderboard?cursor={cursor}"), "validation", "cursor")


@pytest.mark.parametrize(
    "cursor", ["", "null", "0", "%C3%A9", "%00", "%20", "..", "W10", "e30", "eyJhIjoxfQ==", "A" * 60_000]
)
def test_what_is_no_cursor_is_refused(service: Service, cursor: str) -> None:
    assert_problem(service.get(f"/leaderboard?cursor={cursor}"), "validation", "cursor")


# While others move


def moved(service: Service, rows: list[dict[str, object]], dice: random.Random) -> None:
    """Give these users other ratings, half of them far away and half of them next door."""
    for row in rows:
        rating = int(str(row["rating"]))
        far, near = dice.randint(100, 5000), min(5000, max(100, rating + dice.choice((-1, 1))))
        assert 200 == service.put(str(row["id"]), dice.choice((far, near))).status_code


def test_who_does_not_move_is_seen_once_while_others_do(service: Service) -> None:
    """No page repeats a row, everybody at rest is seen exactly once, and every rank is right at its own read."""
    dice = random.Random(1)
    everybody = expected(service)
    movers = dice.sample(everybody, 300)
    seen: list[object] = []
    shown = page(service, limit=100)
    while True:
        rows = rows_of(shown)
        current = {row["id"]: row for row in expected(service)}

        assert [current[row["id"]] for row in rows] == rows
        assert len({row["id"] for row in rows}) == len(rows)
        seen += [row["id"] for row in rows]
        if not shown["next_cursor"]:
            break
        moved(service, dice.sample(movers, 20), dice)
        shown = page(service, limit=100, cursor=shown["next_cursor"])

    at_rest = [row["id"] for row in everybody if row not in movers]
    assert at_rest == [user_id for user_id in seen if user_id in set(at_rest)]


@pytest.mark.parametrize("rating", [100, 5000])
def test_a_cursor_is_a_point_and_not_a_user(service: Service, rating: int) -> None:
    """Whoever was the last on a page may go to the top or to the bottom: the next page begins where they were."""
    shown = page(service, limit=200)
    last = rows_of(shown)[-1]
    assert 200 == service.put(str(last["id"]), rating).status_code
    behind = [
        row
        for row in board(service.rows())
        if (-row.rating, row.username.encode()) > (-int(str(last["rating"])), str(last["username"]).encode())
    ]

    following = rows_of(page(service, limit=1000, cursor=shown["next_cursor"]))
    assert [wire_row(row) for row in behind[:1000]] == following


def test_a_cursor_into_a_tie_continues_inside_it(service: Service) -> None:
    """A tie longer than the page is cut by name."""
    tie = [row for row in expected(service) if row["rating"] == 1500]
    shown = page(service, limit=len(tie) // 2, offset=int(str(tie[0]["position"])) - 1)
    following = rows_of(page(service, limit=len(tie), cursor=shown["next_cursor"]))

    assert tie == [row for row in rows_of(shown) + following if row["rating"] == 1500]
    assert {tie[0]["rank"]} == {row["rank"] for row in tie}
