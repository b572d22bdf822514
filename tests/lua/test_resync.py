"""resync: the expected size follows the board, but only if nobody tampered with it meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from service.store import lua

from .calls import BOARD_STATE, KEYS, Row, Scripts

ANNA = Row("a", 11, 1500, "anna")
BERT = Row("b", 12, 1600, "bert")


@pytest.mark.parametrize("off", [-3, 0, 5])
def test_the_size_that_was_off_is_set_right(scripts: Scripts, off: int) -> None:
    """Writes in between change both sizes alike, and do not matter."""
    scripts.start(ANNA)
    scripts.client.hincrby(KEYS.state, "n", off)
    scripts.put(BERT)

    assert ["ok", 2] == scripts.call(lua.RESYNC, BOARD_STATE, "epoch", off)
    assert "2" == scripts.state("n")


def test_a_size_that_was_lost_is_set_again(scripts: Scripts) -> None:
    """Without it the board counts as expecting nobody."""
    scripts.start(ANNA)
    scripts.client.hdel(KEYS.state, "n")

    assert ["ok", 1] == scripts.call(lua.RESYNC, BOARD_STATE, "epoch", -1)
    assert "1" == scripts.state("n")


@pytest.mark.parametrize("seen", [1, -1, 0])
def test_a_loss_since_is_not_hidden(scripts: Scripts, seen: int) -> None:
    """The difference is another one than the caller saw: something was lost or added that nobody compared."""
    scripts.start(ANNA, BERT)
    scripts.client.hincrby(KEYS.state, "n", 1)
    scripts.remove_by_hand(ANNA)

    with scripts.unchanged():
        assert ["moved"] == scripts.call(lua.RESYNC, BOARD_STATE, "epoch", seen)


@pytest.mark.parametrize("epoch", ["another", ""])
def test_another_board_is_left_alone(scripts: Scripts, epoch: str) -> None:
    """What was seen on one board says nothing about the next."""
    with scripts.unchanged():
        assert ["epoch"] == scripts.call(lua.RESYNC, BOARD_STATE, epoch, 0)
    scripts.start(ANNA)

    with scripts.unchanged():
        assert ["epoch"] == scripts.call(lua.RESYNC, BOARD_STATE, epoch, 0)


@pytest.mark.parametrize("arguments", [(), ("epoch",), ("epoch", "0", "0"), *(("epoch", off) for off in ("", "x", "1.5", "--1", "+1", "1" * 16))])  # fmt: skip
def test_a_malformed_call_writes_nothing(scripts: Scripts, arguments: tuple[Any, ...]) -> None:
    scripts.start(ANNA)

    with scripts.unchanged(), pytest.raises(ResponseError, match=r"^BADARG resync "):
        scripts.call(lua.RESYNC, BOARD_STATE, *arguments)
