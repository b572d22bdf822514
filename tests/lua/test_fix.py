"""fix: a repair replaces exactly what was seen, and loses to everything newer."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from service.order import encode
from service.store import lua

from .calls import BOARD_USERS_STATE, KEYS, MAX_ROWS, Row, Scripts

ANNA = Row("a", 11, 1500, "anna")
BERT = Row("b", 12, 1600, "bert")
GOOD = ("a", "11", "1500", encode("anna"), "")


@pytest.mark.parametrize(
    ("row", "want", "outcome"),
    [
        pytest.param(Row("c", 1, 1700, "carl"), "", "applied", id="an unknown user, whatever the floor"),
        pytest.param(Row("a", 12, 1700, "anna"), "", "applied", id="a newer version"),
        pytest.param(ANNA, "", "same", id="the same version"),
        pytest.param(Row("a", 10, 1400, "anna"), "", "newer", id="an older version"),
        pytest.param(Row("a", 11, 1400, "anna"), 11, "applied", id="the same version, wanted, another rating"),
        pytest.param(Row("a", 11, 1500, "ann.b"), 11, "applied", id="the same version, wanted, another name"),
        pytest.param(Row("a", 5, 1400, "anna"), 11, "applied", id="an older version, wanted"),
        pytest.param(Row("a", 11), 11, "applied", id="a deletion, wanted"),
        pytest.param(Row("a", 11, 1400, "anna"), 10, "raced", id="another version than wanted"),
        pytest.param(Row("a", 20, 1400, "anna"), 10, "raced", id="a newer version, another than wanted"),
        pytest.param(Row("c", 20, 1400, "carl"), 10, "raced", id="an unknown user, a version wanted"),
        pytest.param(Row("odd", 3, 1400, "odd"), "", "applied", id="a field that cannot be read"),
        pytest.param(Row("odd", 3, 1400, "odd"), 3, "raced", id="a field that cannot be read, a version wanted"),
        pytest.param(Row("long", 3, 1400, "long"), "", "applied", id="a version that is too long"),
    ],
)
def test_the_wanted_version_decides(scripts: Scripts, row: Row, want: int | str, outcome: str) -> None:
    """Or, if none is wanted, the newer one; the board, the users hash and the size change together or not at all."""
    scripts.start(ANNA, BERT, floor=100)
    scripts.client.hset(KEYS.users, mapping={"odd": "odd", "long": "9" * 16 + "|x"})
    before = scripts.contents()

    assert ["ok", outcome] == scripts.fix((row, want))

    after = scripts.contents()
    if outcome != "applied":
        assert before == after
        return
    others = [(name, user_id, rating) for name, user_id, rating in before.board if user_id != row.id]
    mine = [] if row.rating is None else [(row.name, row.id, row.rating)]
    assert sorted(others + mine) == sorted(after.board)
    assert f"{row.version}|{encode(row.name)}" == after.users[row.id]
    assert str(len(after.board)) == after.state["n"]


def test_a_lost_place_is_given_back_without_hiding_the_loss(scripts: Scripts) -> None:
    """The size grows with the board: that a member had been lost still shows."""
    scripts.start(ANNA, BERT)
    scripts.remove_by_hand(ANNA)

    assert ["ok", "applied"] == scripts.fix((ANNA, 11))
    assert 2 == len(scripts.contents().board)
    assert "3" == scripts.state("n")


def test_every_row_has_its_own_outcome(scripts: Scripts) -> None:
    scripts.start(ANNA, BERT)

    assert ["ok", "applied", "raced", "same"] == scripts.fix(
        (Row("a", 11, 1400, "anna"), 11), (Row("b", 12), 11), (BERT, "")
    )


@pytest.mark.parametrize("epoch", ["another", ""])
def test_another_board_is_left_alone(scripts: Scripts, epoch: str) -> None:
    """What was decided on one board is not done to the next."""
    with scripts.unchanged():
        assert ["epoch"] == scripts.fix((ANNA, ""), epoch=epoch)
    scripts.start(ANNA)

    with scripts.unchanged():
        assert ["epoch"] == scripts.fix((Row("a", 11), 11), epoch=epoch)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="nothing"),
        pytest.param(("epoch",), id="no row"),
        pytest.param(("epoch", *GOOD[:4]), id="four fields"),
        pytest.param(("epoch", *GOOD, "b"), id="six fields"),
        pytest.param(("epoch", *GOOD * (MAX_ROWS + 1)), id="one row too many"),
        pytest.param(("epoch", "", *GOOD[1:]), id="no id"),
        pytest.param(("epoch", "a", "x", *GOOD[2:]), id="version"),
        pytest.param(("epoch", "a", "11", "1.5", *GOOD[3:]), id="score"),
        pytest.param(("epoch", "a", "11", "-", encode("anna"), ""), id="a deleted user with a name"),
        *(
            pytest.param(("epoch", *GOOD[:4], want), id=f"want {want!r}")
            for want in ("x", "-1", "1.5", "1e3", "1" * 16, " ")
        ),
        pytest.param(("epoch", *GOOD, *GOOD[:4], "x"), id="only the second row is wrong"),
    ],
)
def test_a_malformed_call_writes_nothing(scripts: Scripts, arguments: tuple[Any, ...]) -> None:
    """Everything is checked before the first write, because Redis rolls nothing back."""
    scripts.start(Row("a", 5, 1400, "anna"))

    with scripts.unchanged(), pytest.raises(ResponseError, match=r"^BADARG fix "):
        scripts.call(lua.FIX, BOARD_USERS_STATE, *arguments)
