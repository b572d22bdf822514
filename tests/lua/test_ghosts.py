"""ghosts: members that no user vouches for go, and only those."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from service.model import UserId
from service.order import encode, member
from service.store import lua

from .calls import BOARD_USERS_STATE, KEYS, MAX_ROWS, Row, Scripts

ANNA = Row("a", 11, 1500, "anna")
BERT = Row("b", 12, 1600, "bert")


@pytest.mark.parametrize(
    ("suspect", "is_ghost"),
    [
        pytest.param(member("anna", UserId("a")), False, id="a user's own"),
        pytest.param(member("bert", UserId("a")), True, id="another name"),
        pytest.param(member("anna", UserId("b")), True, id="another id"),
        pytest.param(member("anna", UserId("nobody")), True, id="an unknown id"),
        pytest.param(member("gone", UserId("gone")), True, id="a deleted user's"),
        pytest.param("~gone", True, id="a deleted user's without a name"),
        pytest.param("~a", True, id="no name"),
        pytest.param("a", True, id="no id"),
        pytest.param("", True, id="nothing"),
        pytest.param(member("odd", UserId("odd")), True, id="a user's whose field cannot be read"),
    ],
)
def test_the_user_decides(scripts: Scripts, suspect: str, is_ghost: bool) -> None:
    """By the encoded name in the users hash; the size shrinks with the board, so that the miscount stays."""
    scripts.start(ANNA, BERT, Row("gone", 13))
    scripts.client.hset(KEYS.users, "odd", "odd")
    scripts.client.zadd(KEYS.board, {suspect: 1500})
    size, expected = scripts.client.zcard(KEYS.board), int(scripts.state("n"))

    assert ["ok", int(is_ghost)] == scripts.call(lua.GHOSTS, BOARD_USERS_STATE, "epoch", suspect)
    assert (size - is_ghost, expected - is_ghost) == (scripts.client.zcard(KEYS.board), int(scripts.state("n")))
    assert {encode("anna") + "~a", encode("bert") + "~b"} <= set(scripts.client.zrange(KEYS.board, 0, -1))


def test_whoever_is_gone_already_is_not_counted(scripts: Scripts) -> None:
    scripts.start(ANNA)

    with scripts.unchanged():
        assert ["ok", 0] == scripts.call(lua.GHOSTS, BOARD_USERS_STATE, "epoch", "stranger~x")


@pytest.mark.parametrize("epoch", ["another", ""])
def test_another_board_is_left_alone(scripts: Scripts, epoch: str) -> None:
    """What was decided on one board is not done to the next."""
    scripts.start(ANNA)
    scripts.client.zadd(KEYS.board, {"stranger~x": 1})

    with scripts.unchanged():
        assert ["epoch"] == scripts.call(lua.GHOSTS, BOARD_USERS_STATE, epoch, "stranger~x")


@pytest.mark.parametrize("count", [0, MAX_ROWS + 1])
def test_the_number_of_members_is_bounded(scripts: Scripts, count: int) -> None:
    """Checked before the first one goes."""
    scripts.start(ANNA)
    scripts.client.zadd(KEYS.board, {"stranger~x": 1})

    with scripts.unchanged(), pytest.raises(ResponseError, match=r"^BADARG ghosts "):
        scripts.call(lua.GHOSTS, BOARD_USERS_STATE, "epoch", *["stranger~x"] * count)
