"""begin: one of those who saw the board that way empties it, and names its new life."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from service.store import lua

from .calls import BOARD_USERS_STATE, KEYS, SOURCE, Contents, Row, Scripts

ANNA = Row("a", 11, 1500, "anna")
BEGUN = {
    "fmt": "1",
    "src": SOURCE,
    "epoch": "epoch",
    "tok": "token",
    "ready": "0",
    "n": "0",
    "cx": "700",
    "ci": "",
    "ld": "",
    "applied": "0",
    "floor": "42",
}


def test_a_board_begins_empty_and_not_ready(scripts: Scripts) -> None:
    """Every field of the state has its first value."""
    assert ["ok"] == scripts.begin(floor=42)
    assert Contents([], {}, BEGUN, {}) == scripts.contents()


def test_nothing_of_the_board_before_remains(scripts: Scripts) -> None:
    """Members, fences, tombstones and marks of the epoch before are gone, a field nobody knows included."""
    scripts.start(ANNA, Row("b", 12, 1500, "bert"), floor=7)
    scripts.put(Row("b", 20))
    scripts.client.hset(KEYS.state, "left", "over")

    assert ["ok"] == scripts.begin(seen="epoch", epoch="second", floor=42)
    assert Contents([], {}, {**BEGUN, "epoch": "second"}, {}) == scripts.contents()


def test_cached_users_outlive_the_board(scripts: Scripts) -> None:
    """They are valid by their version, which the new board has to confirm first."""
    scripts.start(ANNA)
    scripts.client.set("user:a", "11|{}", px=60_000)

    scripts.begin(seen="epoch", epoch="second")

    assert {"user:a": "11|{}"} == scripts.contents().others


def test_keys_that_hold_something_else_are_replaced(scripts: Scripts) -> None:
    """Whatever stands there after a mishap does not keep the board from beginning."""
    for key in BOARD_USERS_STATE:
        scripts.client.set(key, "neither hash nor sorted set")

    assert ["ok"] == scripts.begin(seen="", floor=42)
    assert Contents([], {}, BEGUN, {}) == scripts.contents()


@pytest.mark.parametrize("seen", ["", "an older one", "Epoch"])
def test_whoever_saw_another_board_wipes_nothing(scripts: Scripts, seen: str) -> None:
    """Somebody else has begun since, and has perhaps loaded half of it."""
    scripts.start(ANNA)

    with scripts.unchanged():
        assert ["epoch"] == scripts.begin(seen=seen, epoch="second")


def test_a_board_that_is_gone_is_not_the_one_seen(scripts: Scripts) -> None:
    """Redis was flushed after the caller had looked; it has to look again."""
    with scripts.unchanged():
        assert ["epoch"] == scripts.begin(seen="epoch", epoch="second")


def test_a_repeated_call_does_not_begin_again(scripts: Scripts) -> None:
    """After a lost answer the same call finds the epoch moved, and wipes nothing of what came meanwhile."""
    scripts.begin()
    scripts.apply(ANNA)

    with scripts.unchanged():
        assert ["epoch"] == scripts.begin()


def test_a_state_that_lost_its_epoch_can_be_begun(scripts: Scripts) -> None:
    """A hash without its epoch is seen as none, so it does not block the board for ever."""
    scripts.start(ANNA)
    scripts.client.hdel(KEYS.state, "epoch")

    assert ["ok"] == scripts.begin(seen="", epoch="second")


def test_pages_and_writes_from_before_are_refused(scripts: Scripts) -> None:
    """A page carries the old epoch; a put of a user unknown by now is not above the new floor."""
    scripts.start(ANNA)
    scripts.begin(seen="epoch", epoch="second", floor=42)

    with scripts.unchanged():
        assert ["epoch"] == scripts.apply(ANNA, epoch="epoch")
        assert ["ok", ("floor", "", "", "")] == scripts.put(ANNA._replace(version=42))


GOOD = ("", "epoch", "token", SOURCE, "700", "0", "1")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="nothing"),
        pytest.param(GOOD[:6], id="six arguments"),
        pytest.param((*GOOD, ""), id="eight arguments"),
        pytest.param(("", "", *GOOD[2:]), id="no epoch"),
        pytest.param((*GOOD[:2], "", *GOOD[3:]), id="no token"),
        pytest.param((*GOOD[:4], "", *GOOD[5:]), id="no horizon"),
        *(
            pytest.param((*GOOD[:5], floor, "1"), id=f"floor {floor!r}")
            for floor in ("", "x", "-1", "1.5", "1e3", " 1")
        ),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_a_malformed_call_writes_nothing(scripts: Scripts, exists: bool, arguments: tuple[str, ...]) -> None:
    """Neither on a board that is there nor on none."""
    if exists:
        scripts.start(ANNA)

    with scripts.unchanged(), pytest.raises(ResponseError, match=r"^BADARG begin "):
        scripts.call(lua.BEGIN, BOARD_USERS_STATE, *arguments)
