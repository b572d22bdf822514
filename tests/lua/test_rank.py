"""rank: where users stand, all at one instant, or why that cannot be told."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from service.order import encode
from service.store import lua

from .calls import BOARD_STATE_USERS, BOARD_USERS_STATE, KEYS, SOURCE, Row, Scripts
from .reference import Reference

ANNA = Row("a", 11, 1500, "anna")
BERT = Row("b", 12, 1500, "bert")
CARL = Row("c", 13, 1600, "carl")
DORA = Row("d", 14, 1400, "dora")
UNKNOWN = ("", "", "", "")
MAX_IDS = 1000


def test_users_are_told_in_the_order_asked(scripts: Scripts) -> None:
    """Version, rating, rank and position each; one who is asked for twice is told twice."""
    scripts.start(ANNA, BERT, CARL, DORA)

    assert [("12", "1500", 2, 3), ("14", "1400", 4, 4), ("12", "1500", 2, 3), ("13", "1600", 1, 1)] == scripts.rank(
        "b", "d", "b", "c"
    )[3:]


def test_ties_share_a_rank_and_stand_by_name(scripts: Scripts) -> None:
    """Equal ratings: one rank, positions by the bytes of the name, a prefix before what it begins."""
    reference = Reference()
    rows = [
        Row(f"{name}:{rating}", number, rating, name + suffix)
        for number, name in enumerate(["abc", "abcd", "ABC", "ab.", "ab-", "ab_", "ab0", "abC", "zzz"], start=1)
        for rating, suffix in ((1400, ""), (1500, "x"), (1600, "xx"))
    ]
    for row in rows:
        reference.write(row)
    scripts.start(*rows)

    expected = [
        (str(row.version), str(row.rating), *reference.place(row.rating or 0, row.name, besides=row.id)) for row in rows
    ]
    reply = scripts.rank(*(row.id for row in rows))

    assert ["ok", len(rows)] == reply[:2]
    assert expected == reply[3:]


def test_whoever_is_not_on_the_board_is_told_as_nobody(scripts: Scripts) -> None:
    """Unknown, deleted, and an id that looks like part of a member."""
    scripts.start(ANNA, BERT)
    scripts.put(Row("b", 20))

    assert [UNKNOWN, UNKNOWN, ("11", "1500", 1, 1), UNKNOWN] == scripts.rank("x", "b", "a", f"{encode('anna')}~a")[3:]


def test_the_size_counts_members_not_tombstones(scripts: Scripts) -> None:
    """The board's size at the instant of the read."""
    scripts.start(ANNA, BERT, CARL)
    scripts.put(Row("b", 20))

    assert 2 == scripts.rank("a")[1]


@pytest.mark.parametrize("behind", [0, 1, 1500, 3_600_000])
def test_the_lag_is_the_age_of_the_applied_mark(scripts: Scripts, behind: int) -> None:
    """By Redis's own clock, so that no other one needs to be right."""
    scripts.start(ANNA)
    before = scripts.now_ms()
    scripts.apply(applied=before - behind)

    lag = scripts.rank("a")[2]

    assert behind <= lag <= behind + scripts.now_ms() - before


def test_a_mark_from_the_future_tells_no_lag(scripts: Scripts) -> None:
    """The clock was set back, or is another one than the mark's."""
    scripts.start(ANNA)
    scripts.apply(applied=scripts.now_ms() + 60_000)

    assert -1 == scripts.rank("a")[2]


@pytest.mark.parametrize(
    ("stamped", "connected", "known"),
    [("a1", "a1", True), ("a1", "b2", False), ("a1", "", True), ("", "b2", True), (None, "b2", True)],
)
def test_a_lag_is_told_by_the_clock_that_stamped_it(
    scripts: Scripts, stamped: str | None, connected: str, known: bool
) -> None:
    """By every script that tells one; where a server hides its run_id, or an older release stamped, it is not compared."""
    scripts.start(ANNA)
    scripts.apply(applied=f"{scripts.now_ms()}@{stamped or ''}")
    if stamped is None:
        scripts.client.hdel(KEYS.state, "run")
    caller = f"{SOURCE}@{connected}"
    told = [
        scripts.rank("a", source=caller)[2],
        scripts.call(lua.ROWS_OF, BOARD_USERS_STATE, caller, "a")[2],
        scripts.slice_at(1, 0, source=caller)[2],
        scripts.slice_after(1, 1600, "a", source=caller)[2],
        scripts.call(lua.NEIGHBORS, BOARD_STATE_USERS, caller, "a", 1)[2],
        scripts.call(lua.HISTOGRAM, BOARD_STATE_USERS, caller, 100, 200, 100)[2],
    ]

    assert [known] * len(told) == [lag >= 0 for lag in told]


def test_a_board_of_another_history_is_refused_whoever_stamped_it(scripts: Scripts) -> None:
    scripts.start(ANNA)
    scripts.apply(applied=f"{scripts.now_ms()}@a1")

    assert ["source"] == scripts.rank("a", source="elsewhere@a1")
    assert ["source"] == scripts.rank("a", source="elsewhere@b2")
    assert "ok" == scripts.rank("a", source="@a1")[0]


# Boards that must not be believed


def test_without_a_board_nobody_is_ranked(scripts: Scripts) -> None:
    """An empty Redis is not an empty board."""
    assert ["notready"] == scripts.rank("a")


def test_a_loading_board_ranks_nobody(scripts: Scripts) -> None:
    """Half the users above somebody would make the rank too good."""
    scripts.begin()
    scripts.apply(ANNA)

    assert ["notready"] == scripts.rank("a")


def test_a_board_that_lost_or_gained_a_member_ranks_nobody(scripts: Scripts) -> None:
    """The size must be the expected one: after an eviction, a deleted key, a member typed in by hand."""
    scripts.start(ANNA, BERT)
    scripts.remove_by_hand(BERT)
    assert ["notready"] == scripts.rank("a")

    scripts.client.zadd(KEYS.board, {"x~x": 1, "y~y": 2})
    assert ["notready"] == scripts.rank("a")

    scripts.client.delete(KEYS.board)
    assert ["notready"] == scripts.rank("a")


@pytest.mark.parametrize("field", ["ready", "n", "applied"])
def test_a_state_that_lost_a_field_ranks_nobody(scripts: Scripts, field: str) -> None:
    """What vouches for the board is incomplete, so the board is not believed; that is no error."""
    scripts.start(ANNA)
    scripts.client.hdel(KEYS.state, field)

    assert ["notready"] == scripts.rank("a")


def test_a_board_of_another_history_ranks_nobody(scripts: Scripts) -> None:
    """Its ratings are those of a Postgres that the caller does not read; one without a source may be."""
    scripts.start(ANNA)
    assert ["source"] == scripts.rank("a", source="elsewhere")

    scripts.client.hdel(KEYS.state, "src")
    assert ["source"] == scripts.rank("a")


def test_a_caller_that_does_not_know_its_history_is_answered(scripts: Scripts) -> None:
    """While Postgres cannot be reached the board is all there is."""
    scripts.start(ANNA)

    assert ("11", "1500", 1, 1) == scripts.rank("a", source="")[3]


def test_a_lost_users_hash_hides_users_and_invents_nothing(scripts: Scripts) -> None:
    """Without it nobody is found, and the caller asks Postgres."""
    scripts.start(ANNA)
    scripts.client.delete(KEYS.users)

    assert [UNKNOWN] == scripts.rank("a")[3:]


def test_a_member_that_is_missing_beside_a_ghost_is_told_as_nobody(scripts: Scripts) -> None:
    """Two damages can add up to the right size; whoever lost their member is not ranked all the same."""
    scripts.start(ANNA, BERT)
    scripts.remove_by_hand(BERT)
    scripts.client.zadd(KEYS.board, {"ghost~g": 1})

    assert [("11", "1500", 1, 1), UNKNOWN] == scripts.rank("a", "b")[3:]


# Calls


def test_a_look_up_writes_nothing(scripts: Scripts) -> None:
    """It may go to a replica: Redis runs it as read-only."""
    scripts.start(ANNA)

    with scripts.unchanged():
        reply = scripts.client.execute_command("EVAL_RO", lua.RANK.text, 3, *BOARD_USERS_STATE, SOURCE, "a")

    assert ["11", "1500", 1, 1] == reply[3:]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="nothing"),
        pytest.param((SOURCE,), id="no id"),
        pytest.param((SOURCE, *("a",) * (MAX_IDS + 1)), id="one id too many"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_a_malformed_call_is_refused(scripts: Scripts, exists: bool, arguments: tuple[Any, ...]) -> None:
    """Whether or not there is a board to read."""
    if exists:
        scripts.start(ANNA)

    with pytest.raises(ResponseError, match=r"^BADARG rank "):
        scripts.call(lua.RANK, BOARD_USERS_STATE, *arguments)


def test_the_largest_batch_is_answered(scripts: Scripts) -> None:
    """As many ids as the header says."""
    rows = [Row(f"id{number}", 1, 5000 - number, f"name{number}") for number in range(MAX_IDS)]
    scripts.start(*rows)

    reply = scripts.rank(*(row.id for row in rows))

    assert [("1", str(row.rating), place, place) for place, row in enumerate(rows, start=1)] == reply[3:]
