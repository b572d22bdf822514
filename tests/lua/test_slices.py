"""slice_at and slice_after: consecutive rows of the board, and where the first of them stands."""

from __future__ import annotations

import random
from typing import Any

import pytest
from redis.exceptions import ResponseError

from service.order import encode
from service.store import lua
from service.store.lua import Script

from .calls import BOARD_STATE, KEYS, SOURCE, Row, Scripts, rows_of
from .reference import Reference

ANNA = Row("a", 11, 1500, "anna")
BERT = Row("b", 12, 1500, "bert")
MAX_LIMIT = 1000
GOOD: dict[str, tuple[Any, ...]] = {
    "slice_at": (SOURCE, "10", "0"),
    "slice_after": (SOURCE, "10", "5000", encode("aaa")),
}
both = pytest.mark.parametrize("script", [lua.SLICE_AT, lua.SLICE_AFTER], ids=lambda script: script.name)

# Few ratings and names that begin with each other, so that every kind of neighbour is there.
NAMES = [first + second + third for first in ("aaa", "aab") for second in ("", "a", "-", ".") for third in ("", "Z")]
ROWS = [
    Row(f"id-{rating}-{number}", number + 1, rating, f"{name}{rating % 7}")
    for rating in (1400, 1500, 1600)
    for number, name in enumerate(NAMES)
]


@pytest.fixture
def tied(scripts: Scripts) -> list[tuple[str, str, int]]:
    """A board full of ties; returns its rows in order."""
    scripts.start(*random.sample(ROWS, len(ROWS)))
    reference = Reference()
    for row in ROWS:
        reference.write(row)
    return reference.board()


def higher(board: list[tuple[str, str, int]], rows: list[tuple[str, str, int]]) -> int:
    """How many are rated above the first of these rows."""
    return sum(rating > rows[0][2] for _, _, rating in board) if rows else 0


def test_rows_after_a_number_of_rows(scripts: Scripts, tied: list[tuple[str, str, int]]) -> None:
    """From every offset: the reference's rows, and how many are rated above the first."""
    for offset in range(len(tied) + 3):
        for limit in (1, 5, MAX_LIMIT):
            reply = scripts.slice_at(limit, offset)
            expected = tied[offset : offset + limit]

            assert ["ok", len(tied)] == reply[:2]
            assert [offset, higher(tied, expected)] == reply[3:5]
            assert expected == rows_of(reply)


@pytest.mark.parametrize("limit", [1, 5])
def test_rows_after_every_row(scripts: Scripts, tied: list[tuple[str, str, int]], limit: int) -> None:
    """After the point where a row stands come the rows behind it, and not the row again."""
    for place, (name, _, rating) in enumerate(tied, start=1):
        reply = scripts.slice_after(limit, rating, name)
        expected = tied[place : place + limit]

        assert [place, higher(tied, expected)] == reply[3:5]
        assert expected == rows_of(reply)


def test_rows_after_a_point_where_nobody_stands(scripts: Scripts, tied: list[tuple[str, str, int]]) -> None:
    """Whoever stood there is gone, renamed or rated anew: the rows strictly after the point, all the same."""
    names = ["---", "AAA", "aa-", "aaa", "aaa0", "aaa0Z0", "aaaa", "aaaz", "aab-Zz", "zzz", "zzzzzzzz"]
    for rating in (100, 1399, 1400, 1450, 1500, 1501, 1600, 1601, 5000):
        for name in names:
            reply = scripts.slice_after(7, rating, name)
            behind = [row for row in tied if (-row[2], row[0]) > (-rating, name)]

            assert [len(tied) - len(behind), higher(tied, behind)] == reply[3:5]
            assert behind[:7] == rows_of(reply)


def test_a_point_whose_user_left_keeps_its_place(scripts: Scripts, tied: list[tuple[str, str, int]]) -> None:
    """Deleted between two pages: the next page begins where it would have begun."""
    name, user_id, rating = tied[20]
    scripts.put(Row(user_id, 1000))

    assert tied[21:26] == rows_of(scripts.slice_after(5, rating, name))


def test_the_first_point_of_all_is_before_everybody(scripts: Scripts, tied: list[tuple[str, str, int]]) -> None:
    """A rating above all shows the board from its top."""
    assert tied[:5] == rows_of(scripts.slice_after(5, 10**15 - 1, "zzz"))


# What holds for either way of saying where the slice begins


@both
def test_an_empty_board_has_no_rows(scripts: Scripts, script: Script) -> None:
    """A slice of it is empty, which is an answer and not a refusal."""
    scripts.start()

    reply = scripts.call(script, BOARD_STATE, *GOOD[script.name])

    assert ["ok", 0] == reply[:2]
    assert [0, []] == reply[4:]


@both
def test_a_board_without_vouchers_shows_nothing(scripts: Scripts, script: Script) -> None:
    """No board, a loading one, one that lost a member: not ready."""
    call = (script, BOARD_STATE, *GOOD[script.name])
    assert ["notready"] == scripts.call(*call)

    scripts.begin()
    scripts.apply(ANNA, BERT)
    assert ["notready"] == scripts.call(*call)

    scripts.apply(ready="1")
    assert "ok" == scripts.call(*call)[0]

    scripts.remove_by_hand(ANNA)
    assert ["notready"] == scripts.call(*call)


@both
@pytest.mark.parametrize("field", ["ready", "n", "applied"])
def test_a_state_that_lost_a_field_shows_nothing(scripts: Scripts, script: Script, field: str) -> None:
    """What vouches for the board is incomplete, so the board is not believed; that is no error."""
    scripts.start(ANNA)
    scripts.client.hdel(KEYS.state, field)

    assert ["notready"] == scripts.call(script, BOARD_STATE, *GOOD[script.name])


@both
def test_a_board_of_another_history_shows_nothing(scripts: Scripts, script: Script) -> None:
    """Unless the caller does not know its own."""
    scripts.start(ANNA)
    _, *rest = GOOD[script.name]

    assert ["source"] == scripts.call(script, BOARD_STATE, "elsewhere", *rest)
    assert "ok" == scripts.call(script, BOARD_STATE, "", *rest)[0]


@both
def test_a_slice_writes_nothing(scripts: Scripts, script: Script) -> None:
    """It may go to a replica: Redis runs it as read-only."""
    scripts.start(ANNA)

    with scripts.unchanged():
        reply = scripts.client.execute_command("EVAL_RO", script.text, 2, *BOARD_STATE, *GOOD[script.name])

    assert "ok" == reply[0]


@both
def test_the_lag_is_the_age_of_the_applied_mark(scripts: Scripts, script: Script) -> None:
    """As the look-up tells it."""
    scripts.start(ANNA)
    before = scripts.now_ms()
    scripts.apply(applied=before - 1500)

    lag = scripts.call(script, BOARD_STATE, *GOOD[script.name])[2]

    assert 1500 <= lag <= 1500 + scripts.now_ms() - before


@both
def test_the_longest_slice_is_read(scripts: Scripts, script: Script) -> None:
    """As many rows as the header says, and not one more than asked for."""
    rows = [Row(f"id{number}", 1, 4000 - number, f"name{number}") for number in range(MAX_LIMIT + 1)]
    scripts.start(*rows)
    _, _, *start = GOOD[script.name]

    found = rows_of(scripts.call(script, BOARD_STATE, SOURCE, MAX_LIMIT, *start))

    assert [(row.name, row.id, row.rating) for row in rows[:MAX_LIMIT]] == found


# Calls that break the contract

NO_LIMITS = ("", "x", "0", "-1", "1001", "1.5", "nan", "inf")


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        *(
            pytest.param(script, GOOD[script.name][:count], id=f"{script.name} with {count} arguments")
            for script in (lua.SLICE_AT, lua.SLICE_AFTER)
            for count in range(len(GOOD[script.name]))
        ),
        *(
            pytest.param(script, (SOURCE, limit, *GOOD[script.name][2:]), id=f"{script.name} limit {limit!r}")
            for script in (lua.SLICE_AT, lua.SLICE_AFTER)
            for limit in NO_LIMITS
        ),
        *(
            pytest.param(lua.SLICE_AT, (SOURCE, "10", offset), id=f"offset {offset!r}")
            for offset in ("", "x", "-1", "1.5", "nan", "inf", str(2**53))
        ),
        *(
            pytest.param(lua.SLICE_AFTER, (SOURCE, "10", score, "A"), id=f"score {score!r}")
            for score in ("", "x", "-1", "(1", "1.5", "inf", "nan", "1" * 16)
        ),
    ],
)
def test_a_malformed_call_is_refused(scripts: Scripts, script: Script, arguments: tuple[Any, ...]) -> None:
    """With the word that the wrapper knows, not with whatever Redis says of a bad argument further down."""
    scripts.start(ANNA)

    with pytest.raises(ResponseError, match=f"^BADARG {script.name} "):
        scripts.call(script, BOARD_STATE, *arguments)


def test_the_last_offset_is_read(scripts: Scripts) -> None:
    """The largest number that is exact in a script is behind every board."""
    scripts.start(ANNA)

    assert [2**53 - 1, 0, []] == scripts.slice_at(1, 2**53 - 1)[3:]


# Pages that must not be from before a write

WITH_USERS = (KEYS.board, KEYS.state, KEYS.users)


@both
@pytest.mark.parametrize(
    ("since", "status"),
    [
        ((), "ok"),
        (("a", 11), "ok"),
        (("a", 10), "ok"),
        (("a", 12), "behind"),
        (("gone", 20), "ok"),
        (("gone", 21), "behind"),
        (("nobody", 1), "behind"),
        (("a", 11, "b", 12), "ok"),
        (("a", 11, "b", 13), "behind"),
        (("a", 12, "b", 12), "behind"),
    ],
)
def test_a_page_has_the_writes_that_it_must_show(
    scripts: Scripts, script: Script, since: tuple[Any, ...], status: str
) -> None:
    """Every one of them, or there is no page; a deletion is a write too."""
    scripts.start(ANNA, BERT)
    scripts.put(Row("gone", 20, None, ""))
    reply = scripts.call(script, WITH_USERS, *GOOD[script.name], *since)

    assert status == reply[0]
    assert (reply[0] == "ok") == (len(reply) > 1)


@both
def test_a_board_that_is_not_ready_says_so_first(scripts: Scripts, script: Script) -> None:
    """Whether a write is there does not matter then."""
    assert ["notready"] == scripts.call(script, WITH_USERS, *GOOD[script.name], "a", 11)


@both
@pytest.mark.parametrize(
    "since", [("a",), ("a", ""), ("a", "x"), ("a", "-1"), ("a", "1.5"), ("a", 1, "b"), ("a", 1) * 11]
)
def test_a_malformed_pair_is_refused(scripts: Scripts, script: Script, since: tuple[Any, ...]) -> None:
    scripts.start(ANNA)

    with pytest.raises(ResponseError, match=f"^BADARG {script.name} "):
        scripts.call(script, WITH_USERS, *GOOD[script.name], *since)


@both
@pytest.mark.parametrize("held", ["", "x", "|F", "7"])
def test_a_damaged_entry_shows_no_write(scripts: Scripts, script: Script, held: str) -> None:
    scripts.start(ANNA)
    scripts.client.hset(KEYS.users, "b", held)

    assert ["behind"] == scripts.call(script, WITH_USERS, *GOOD[script.name], "b", 1)
