"""compact and sweep: a new epoch that knows which users are deleted, and then their fields are gone."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from service.store import lua

from .calls import BOARD_STATE_USERS, BOARD_USERS_STATE, KEYS, SOURCE, Row, Scripts

ANNA = Row("a", 11, 1500, "anna")
GONE = Row("g", 12)
LATER = Row("l", 40)
RUN = "run"


def compact(
    scripts: Scripts, *, epoch: str = "epoch", settled: Any = 20, xact: Any = 700, run: str = RUN, since: Any = 0
) -> list[Any]:
    """Begin the epoch "second"."""
    return scripts.call(lua.COMPACT, [KEYS.state], epoch, "second", "token-2", settled, xact, run, since)


def sweep(scripts: Scripts, *ids: str, epoch: str = "second") -> list[Any]:
    """Remove fields."""
    return scripts.call(lua.SWEEP, [KEYS.users, KEYS.state], epoch, *ids)


@pytest.fixture
def begun(scripts: Scripts) -> Scripts:
    """A board with a user and two deleted ones, whose checkpoint is 700."""
    scripts.start(ANNA, GONE, LATER)
    scripts.client.hset(KEYS.state, "run", RUN)
    return scripts


def test_the_board_stays_and_may_be_read(begun: Scripts) -> None:
    """Only the epoch, the token and what is known of unknown users change."""
    before = begun.contents()
    assert ["ok"] == compact(begun)
    after = begun.contents()

    assert (before.board, before.users) == (after.board, after.users)
    changed = {"epoch": "second", "tok": "token-2", "floor": "20", "settled": "20"}
    assert before.state | changed == after.state
    assert "ok" == begun.rank("a")[0]


def test_batches_and_repairs_of_the_old_epoch_are_refused(begun: Scripts) -> None:
    """They may know a user as alive whose field is about to go."""
    token = begun.state("tok")
    compact(begun)
    sweep(begun, "g")

    assert ["epoch"] == begun.apply(Row("g", 5, 1400, "gone"), token=token)
    assert ["epoch"] == begun.fix((Row("g", 5, 1400, "gone"), ""))
    assert ["epoch"] == sweep(begun, "l", epoch="epoch")


def test_only_settled_deletions_are_swept(begun: Scripts) -> None:
    """Not a user who is there, nor one who was deleted later, nor one who was created again."""
    compact(begun)
    begun.put(Row("g", 50, 1300, "again"))

    assert ["ok", 0] == sweep(begun, "a", "g", "l", "nobody")
    begun.client.hset(KEYS.users, "other", "13|")
    assert ["ok", 1] == sweep(begun, "a", "other", "l")
    assert {"a", "g", "l"} == set(begun.contents().users)


def test_a_late_put_of_a_user_who_is_forgotten_is_refused(begun: Scripts) -> None:
    """And one of a version that came later is a user created again."""
    compact(begun)
    sweep(begun, "g")

    assert "floor" == begun.put(Row("g", 9, 1400, "gone"))[1][0]
    assert "applied" == begun.put(Row("g", 21, 1400, "again"))[1][0]


def test_the_token_of_a_deletion_that_is_forgotten_has_been_reached(begun: Scripts) -> None:
    """One that is not settled, or of a board that was never compacted, has not."""

    def status(user_id: str, version: int) -> str:
        return str(begun.call(lua.SLICE_AT, BOARD_STATE_USERS, SOURCE, 10, 0, user_id, version)[0])

    assert ["ok", "behind"] == [status("g", 12), status("unknown", 12)]
    compact(begun)
    sweep(begun, "g")

    assert ["ok", "ok", "behind", "behind"] == [
        status("g", 12), status("unknown", 20), status("unknown", 21), status("a", 12)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        ({"xact": 701}, "ready", "1"),
        ({"run": "other"}, "ready", "1"),
        ({"since": 9_000_000_000_000_000}, "ready", "1"),
        ({}, "ready", "0"),
        ({}, "cx", "broken"),
        ({}, "applied", "0"),
    ],
)
def test_what_the_caller_has_seen_must_be_there(
    begun: Scripts, arguments: dict[str, Any], field: str, value: str
) -> None:
    """A Redis that fell back in between, or another server, lacks it."""
    begun.client.hset(KEYS.state, field, value)
    with begun.unchanged():
        assert ["early"] == compact(begun, **arguments)


def test_another_epoch_is_left_alone(begun: Scripts) -> None:
    with begun.unchanged():
        assert ["epoch"] == compact(begun, epoch="other")


def test_a_higher_floor_stays(begun: Scripts) -> None:
    """A load knows more than a compaction that began before it."""
    begun.client.hset(KEYS.state, "floor", "30")
    compact(begun)

    assert ("30", "20") == (begun.state("floor"), begun.state("settled"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("epoch", "", "t", 1, 1, "r", 1),
        ("epoch", "e", "t", -1, 1, "r", 1),
        ("epoch", "e", "t", 1, "x", "r", 1),
        ("epoch",),
    ],
)
def test_compact_refuses_what_it_cannot_use(begun: Scripts, arguments: tuple[Any, ...]) -> None:
    with begun.unchanged(), pytest.raises(ResponseError, match="BADARG"):
        begun.call(lua.COMPACT, [KEYS.state], *arguments)


@pytest.mark.parametrize("count", [0, 251])
def test_sweep_refuses_what_it_cannot_use(begun: Scripts, count: int) -> None:
    with begun.unchanged(), pytest.raises(ResponseError, match="BADARG"):
        begun.call(lua.SWEEP, [KEYS.users, KEYS.state], "epoch", *map(str, range(count)))


def test_the_fields_of_a_board_are_left(begun: Scripts) -> None:
    """Before a compaction nothing is swept."""
    assert ["ok", 0] == begun.call(lua.SWEEP, [KEYS.users, KEYS.state], "epoch", "g")
    assert ["ok", 1] == [*begun.call(lua.PEEK, BOARD_USERS_STATE, "epoch")[:1], 1]
