"""rows_of, neighbors and histogram: what a list, a window and a count of ratings show, all of one instant."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from service.order import encode
from service.store import lua
from service.store.lua import Script

from .calls import BOARD_STATE_USERS, BOARD_USERS_STATE, SOURCE, Row, Scripts, rows_of

ANNA = Row("a", 11, 1500, "anna")
BERT = Row("b", 12, 1500, "bert")
CARL = Row("c", 13, 1600, "carl")
DORA = Row("d", 14, 1400, "dora")
EMIL = Row("e", 15, 1500, "emil")
PEOPLE = (ANNA, BERT, CARL, DORA, EMIL)
CALLS: dict[str, tuple[Script, tuple[str, ...], tuple[Any, ...]]] = {
    "rows_of": (lua.ROWS_OF, BOARD_USERS_STATE, ("a",)),
    "neighbors": (lua.NEIGHBORS, BOARD_STATE_USERS, ("a", 1)),
    "histogram": (lua.HISTOGRAM, BOARD_STATE_USERS, (100, 5000, 50)),
}


def call(scripts: Scripts, name: str, *arguments: Any, source: str = SOURCE) -> list[Any]:
    """Call one of the three with these arguments, else with those of a healthy caller."""
    script, keys, usual = CALLS[name]
    return scripts.call(script, keys, source, *(arguments or usual))


def test_rows_are_told_in_the_order_asked(scripts: Scripts) -> None:
    """With name and version; ties share a rank; whoever is unknown or deleted is told as nobody."""
    scripts.start(*PEOPLE)
    scripts.put(Row("d", 20))
    reply = call(scripts, "rows_of", "e", "x", "c", "a", "d")

    assert ["ok", 4] == reply[:2]
    assert [
        *(f"15|{encode('emil')}", "1500", 2, 4),
        *("", "", "", ""),
        *(f"13|{encode('carl')}", "1600", 1, 1),
        *(f"11|{encode('anna')}", "1500", 2, 2),
        *("", "", "", ""),
    ] == reply[3:]


@pytest.mark.parametrize(
    ("user_id", "radius", "offset", "names"),
    [
        ("b", 1, 1, ["anna", "bert", "emil"]),
        ("c", 1, 0, ["carl", "anna", "bert"]),
        ("d", 1, 2, ["bert", "emil", "dora"]),
        ("d", 2, 0, ["carl", "anna", "bert", "emil", "dora"]),
        ("a", 100, 0, ["carl", "anna", "bert", "emil", "dora"]),
        ("x", 1, 0, []),
    ],
)
def test_a_window_is_full_at_both_ends(
    scripts: Scripts, user_id: str, radius: int, offset: int, names: list[str]
) -> None:
    """As many rows more on the other side; all rows of a small board; none around nobody."""
    scripts.start(*PEOPLE)
    reply = call(scripts, "neighbors", user_id, radius)
    found = [name for name, _, _ in rows_of(reply)]

    assert ["ok", 5] == reply[:2]
    assert (offset, names) == (reply[3], found)
    assert sum((row.rating or 0) > rows_of(reply)[0][2] for row in PEOPLE) == reply[4] if names else not reply[4]


@pytest.mark.parametrize(
    ("span", "above", "users"),
    [
        ((100, 5000, 1000), 0, [0, 5, 0, 0, 0]),
        ((1400, 1600, 100), 0, [1, 3, 1]),
        ((1500, 1500, 1), 1, [3]),
        ((1450, 1450, 1), 4, [0]),
        ((1450, 1550, 51), 1, [3, 0]),
        ((0, 99, 7), 5, [0] * 15),
    ],
)
def test_each_bucket_is_counted(scripts: Scripts, span: tuple[int, int, int], above: int, users: list[int]) -> None:
    """From low to high, both included, the last bucket cut; quantiles are of the whole board."""
    scripts.start(*PEOPLE)
    reply = call(scripts, "histogram", *span)

    assert ["ok", 5] == reply[:2]
    assert [above, "1400", "1500", "1600", "1600", *users] == reply[3:]


def test_nobody_has_no_quantiles(scripts: Scripts) -> None:
    """An empty board is counted like any other."""
    scripts.start()

    assert [0, "", "", "", "", 0, 0] == call(scripts, "histogram", 1, 2, 1)[3:]


# What must not be believed, or lacks a write


@pytest.mark.parametrize("name", CALLS)
def test_a_board_that_must_not_be_believed_tells_nothing(scripts: Scripts, name: str) -> None:
    """None, one that lost a member, and one of another history."""
    assert ["notready"] == call(scripts, name)
    scripts.start(*PEOPLE)
    assert "ok" == call(scripts, name)[0]
    assert ["source"] == call(scripts, name, source="elsewhere")
    scripts.remove_by_hand(BERT)
    assert ["notready"] == call(scripts, name)


@pytest.mark.parametrize("name", ["neighbors", "histogram"])
def test_a_write_that_is_lacking_is_told(scripts: Scripts, name: str) -> None:
    """That version of that user or a newer one, for each of the pairs."""
    scripts.start(*PEOPLE)
    usual = CALLS[name][2]

    assert "ok" == call(scripts, name, *usual, "a", 11, "b", 1)[0]
    assert ["behind"] == call(scripts, name, *usual, "a", 11, "b", 13)
    assert ["behind"] == call(scripts, name, *usual, "x", 1)


@pytest.mark.parametrize("name", CALLS)
def test_a_look_up_writes_nothing(scripts: Scripts, name: str) -> None:
    """It may go to a replica: Redis runs it as read-only."""
    scripts.start(*PEOPLE)
    script, keys, usual = CALLS[name]

    with scripts.unchanged():
        reply = scripts.client.execute_command("EVAL_RO", script.text, 3, *keys, SOURCE, *usual)
    assert "ok" == reply[0]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("rows_of", ("a",) * 1011),
        *(("neighbors", arguments) for arguments in (("a",), ("", 1), ("a", 0), ("a", 101), ("a", "nan"), ("a", 1.5))),
        *(("neighbors", ("a", 1, *pairs)) for pairs in (("b",), ("b", "x"), ("b", 1) * 11)),
        *(("histogram", span) for span in ((1, 2), (2, 1, 1), (1, 2, 0), ("", 2, 1), (1, "x", 1), (1, 501, 1))),
        *(("histogram", (1, 2, 1, *pairs)) for pairs in (("b",), ("b", "x"), ("b", 1) * 11)),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_a_malformed_call_is_refused(scripts: Scripts, exists: bool, name: str, arguments: tuple[Any, ...]) -> None:
    """Whether or not there is a board to read."""
    if exists:
        scripts.start(ANNA)

    with pytest.raises(ResponseError, match=f"^BADARG {name} "):
        call(scripts, name, *arguments)
