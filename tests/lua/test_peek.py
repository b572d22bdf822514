"""peek: what the mirror holds about users, and by how much it miscounts itself, at one instant."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from service.order import encode
from service.store import lua
from service.store.inspection import PEEK_IDS

from .calls import BOARD_USERS_STATE, KEYS, Row, Scripts

ANNA = Row("a", 11, 1500, "anna")
BERT = Row("b", 12, 1600, "bert")


def test_users_are_told_as_they_are_held(scripts: Scripts) -> None:
    """The field and the score of the member it names; "" for what is not there."""
    scripts.start(ANNA, BERT)
    scripts.apply(Row("gone", 20))
    scripts.client.hset(KEYS.users, mapping={"odd": "x", "placeless": f"7|{encode('nobody')}"})

    assert [
        "ok", 0,
        f"11|{encode('anna')}", "1500",
        f"12|{encode('bert')}", "1600",
        "20|", "",
        "x", "",
        f"7|{encode('nobody')}", "",
        "", "",
    ] == scripts.call(lua.PEEK, BOARD_USERS_STATE, "epoch", "a", "b", "gone", "odd", "placeless", "unknown")  # fmt: skip


@pytest.mark.parametrize(("tampering", "miscount"), [("none", 0), ("lost", 1), ("added", -1), ("uncounted", -2)])
def test_the_miscount_is_what_tampering_left(scripts: Scripts, tampering: str, miscount: int) -> None:
    """Positive when members were lost, negative when strangers came; without ids it is all that is told."""
    scripts.start(ANNA, BERT)
    if tampering == "lost":
        scripts.remove_by_hand(ANNA)
    elif tampering == "added":
        scripts.client.zadd(KEYS.board, {"stranger": 1})
    elif tampering == "uncounted":
        scripts.client.hdel(KEYS.state, "n")

    assert ["ok", miscount] == scripts.call(lua.PEEK, BOARD_USERS_STATE, "epoch")


def test_a_board_that_began_anew_tells_nothing(scripts: Scripts) -> None:
    """Nor one that is not there."""
    assert ["epoch"] == scripts.call(lua.PEEK, BOARD_USERS_STATE, "epoch", "a")
    scripts.start(ANNA)

    assert ["epoch"] == scripts.call(lua.PEEK, BOARD_USERS_STATE, "another", "a")


def test_the_number_of_ids_is_bounded(scripts: Scripts) -> None:
    """As many as the wrapper sends, and no more."""
    scripts.start(ANNA)

    assert 2 + 2 * PEEK_IDS == len(scripts.call(lua.PEEK, BOARD_USERS_STATE, "epoch", *["a"] * PEEK_IDS))
    for arguments in ([], ["epoch", *["a"] * (PEEK_IDS + 1)]):
        with pytest.raises(ResponseError, match=r"^BADARG peek "):
            scripts.call(lua.PEEK, BOARD_USERS_STATE, *arguments)
