"""put: a committed write stands on the board unless something newer does, and its rank is told."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError

from service.order import encode
from service.store import lua

from .calls import BOARD_USERS_STATE, KEYS, MAX_ROWS, SOURCE, Row, Scripts, rows_of
from .reference import Reference

ANNA = Row("a", 11, 1500, "anna")
BERT = Row("b", 12, 1500, "bert")
CARL = Row("c", 13, 1600, "carl")
DORA = Row("d", 14, 1400, "dora")


# What becomes of a row


def test_a_new_user_is_placed(scripts: Scripts) -> None:
    """A user nobody knew stands on the board, is fenced by the version, and is counted."""
    scripts.start(ANNA, CARL)

    assert ["ok", ("applied", 2, 3, "")] == scripts.put(BERT)

    found = scripts.contents()

    assert [("carl", "c", 1600), ("anna", "a", 1500), ("bert", "b", 1500)] == found.board
    assert f"12|{encode('bert')}" == found.users["b"]
    assert "3" == found.state["n"]


def test_a_newer_version_moves_the_user(scripts: Scripts) -> None:
    """A new rating replaces the old one, and the size stays."""
    scripts.start(ANNA, BERT, CARL)

    assert ["ok", ("applied", 1, 1, 2)] == scripts.put(Row("b", 20, 1700, "bert", before=1500))
    assert [("bert", "b", 1700), ("carl", "c", 1600), ("anna", "a", 1500)] == scripts.contents().board
    assert "3" == scripts.state("n")


def test_the_same_version_again_changes_nothing_and_tells_the_same_rank(scripts: Scripts) -> None:
    """A put that is repeated after a lost answer is answered as the first one was, but for the outcome."""
    scripts.start(ANNA, CARL)
    scripts.put(BERT)

    with scripts.unchanged():
        assert ["ok", ("same", 2, 3, "")] == scripts.put(BERT)


def test_an_older_version_changes_nothing(scripts: Scripts) -> None:
    """A put that arrives after a newer one leaves rating, name, version and size alone."""
    scripts.start(ANNA, CARL, Row("b", 20, 1700, "bertram"))

    with scripts.unchanged():
        assert "newer" == scripts.put(BERT)[1][0]


@pytest.mark.parametrize(
    "current",
    [
        Row("m", 9, 1700, "mmm"),
        Row("m", 9, 1300, "mmm"),
        Row("m", 9, 1500, "mmm"),
        Row("m", 9, 1500, "lll"),
        Row("m", 9, 1500, "nnn"),
        Row("m", 9, 1500, "mmmm"),
        Row("m", 9, 1500, "mm-"),
        pytest.param(Row("m", 9, 1500, "mm"), id="the current name is a prefix of the late row's"),
        Row("m", 9, 1700, "mm"),
        Row("m", 9),
    ],
)
def test_an_older_version_is_ranked_without_the_newer_one(scripts: Scripts, current: Row) -> None:
    """Where the row would stand among everybody else: the user's own current entry is nobody above it."""
    others = [
        Row(name, 1, rating, name)
        for rating in (1300, 1500, 1700)
        for name in (f"kkk{rating}", f"mmk{rating}", f"mmml{rating}", f"nnn{rating}")
    ]
    scripts.start(*others, current)
    reference = Reference()
    for row in (*others, current):
        reference.write(row, bypass=True)

    late = Row("m", 5, 1500, "mmm", before=1300)

    expected = (*reference.place(1500, "mmm", besides="m"), reference.place(1300, "", besides="m")[0])
    assert ["ok", ("newer", *expected)] == scripts.put(late)


def test_an_unknown_user_at_or_below_the_floor_is_refused(scripts: Scripts) -> None:
    """Such a user may have been deleted before the board began; whoever is newer than the floor is not."""
    scripts.start(CARL, floor=20)

    with scripts.unchanged():
        assert ["ok", ("floor", "", "", 2)] == scripts.put(Row("b", 20, 1500, "bert", before=1500))
        assert ["ok", ("floor", "", "", "")] == scripts.put(Row("b", 19, 1500, "bert"))

    assert ["ok", ("applied", 2, 2, "")] == scripts.put(Row("b", 21, 1500, "bert"))


def test_the_floor_does_not_bind_a_known_user(scripts: Scripts) -> None:
    """The floor is for users the board does not know; for the others their own version decides."""
    scripts.start(ANNA, floor=20)

    assert ["ok", ("applied", 1, 1, "")] == scripts.put(Row("a", 12, 1700, "anna"))


def test_each_row_of_a_batch_has_an_outcome_of_its_own(scripts: Scripts) -> None:
    """Applied, same, newer and floor side by side, in the order of the rows."""
    scripts.start(ANNA, Row("b", 30, 1500, "bert"), floor=12)
    scripts.put(CARL)

    reply = scripts.put(DORA, CARL, Row("b", 29, 1500, "bert"), Row("e", 12, 1500, "emil"))

    assert ["ok", "applied", "same", "newer", "floor"] == [reply[0], *(row[0] for row in reply[1:])]


# Deleting, renaming


def test_a_deleted_user_leaves_a_tombstone(scripts: Scripts) -> None:
    """The user is off the board and no longer counted; the version stays behind as the fence."""
    scripts.start(ANNA, BERT)

    assert ["ok", ("applied", "", "", 1)] == scripts.put(Row("a", 20, before=1500))

    found = scripts.contents()

    assert [("bert", "b", 1500)] == found.board
    assert "20|" == found.users["a"]
    assert "1" == found.state["n"]


def test_a_put_that_is_late_for_a_deletion_revives_nobody(scripts: Scripts) -> None:
    """An update committed before the deletion and carried over after it finds the tombstone."""
    scripts.start(ANNA, BERT)
    scripts.put(Row("a", 20))

    with scripts.unchanged():
        assert ["ok", ("newer", 1, 1, "")] == scripts.put(Row("a", 19, 1700, "anna"))
        assert ["ok", ("same", "", "", "")] == scripts.put(Row("a", 20))
        assert ["ok", ("newer", "", "", "")] == scripts.put(Row("a", 18))


def test_an_id_that_is_used_again_returns(scripts: Scripts) -> None:
    """A user created with the id of a deleted one is newer than the tombstone."""
    scripts.start(ANNA, BERT)
    scripts.put(Row("a", 20))

    assert ["ok", ("applied", 1, 1, "")] == scripts.put(Row("a", 21, 1700, "another"))
    assert "2" == scripts.state("n")


def test_a_deletion_of_somebody_unknown_is_remembered(scripts: Scripts) -> None:
    """When the deletion arrives before the creation, the creation is late and finds the tombstone."""
    scripts.start(ANNA)

    assert ["ok", ("applied", "", "", "")] == scripts.put(Row("b", 20))
    assert ["ok", ("newer", 1, 2, "")] == scripts.put(BERT)
    assert [("anna", "a", 1500)] == scripts.contents().board
    assert "1" == scripts.state("n")


@pytest.mark.parametrize("rating", [1500, 1700])
def test_a_renamed_user_is_on_the_board_once(scripts: Scripts, rating: int) -> None:
    """The member under the old name goes in the same step as the new one comes."""
    scripts.start(ANNA, BERT)

    scripts.put(Row("a", 20, rating, "zoe"))

    assert {("bert", "b", 1500), ("zoe", "a", rating)} == set(scripts.contents().board)
    assert "2" == scripts.state("n")


def test_a_name_given_to_another_user_keeps_both_apart(scripts: Scripts) -> None:
    """The member ends in the id, so the late removal of the old holder does not touch the new one."""
    scripts.start(ANNA)

    scripts.put(Row("b", 30, 1500, "anna"))
    scripts.put(Row("a", 29, 1500, "former"))

    assert [("anna", "b", 1500), ("former", "a", 1500)] == scripts.contents().board
    assert "2" == scripts.state("n")


# Ranks


def test_ties_share_a_rank_and_stand_by_name(scripts: Scripts) -> None:
    """Equal ratings: one rank, positions by the bytes of the name, a prefix before what it begins."""
    names = ["-on", "...", "0ne", "Ann", "Anna", "Anna.b", "_an", "ann", "anna", "annab", "anne"]
    scripts.start(Row("top", 1, 1501, "top"))

    reply = scripts.put(*(Row(name, 2, 1500, name) for name in reversed(names)))

    assert [("applied", 2, position, "") for position in range(len(names) + 1, 1, -1)] == reply[1:]


def test_ranks_are_those_after_the_whole_batch(scripts: Scripts) -> None:
    """A row is ranked among the rows behind it in the batch; the rank before, as if none had come yet."""
    scripts.start(ANNA, BERT)

    assert ["ok", ("applied", 3, 3, 1), ("applied", 2, 2, 1), ("applied", 1, 1, "")] == scripts.put(
        Row("a", 20, 1600, "anna", before=1500), Row("b", 21, 1700, "bert", before=1500), Row("c", 22, 1800, "carl")
    )


@pytest.mark.parametrize("before", [100, 1499, 1500, 1501, 1600, 1601, 5000])
def test_the_rank_before_does_not_count_the_user(scripts: Scripts, before: int) -> None:
    """Whatever the mirror holds of the user, the rank before the write is the one among the others."""
    scripts.start(ANNA, BERT, CARL, DORA)

    (_, (_, _, _, rank)) = scripts.put(Row("c", 20, 1550, "carl", before=before))

    assert 1 + sum(other.rating > before for other in (ANNA, BERT, DORA) if other.rating) == rank


@pytest.mark.parametrize("rating", [0, 1, 4999, 2**31, 2**32 + 1, 10**14, 10**15 - 2, 10**15 - 1])
def test_a_score_comes_out_as_it_went_in(scripts: Scripts, rating: int) -> None:
    """Digit by digit up to the widest score a script takes, and beside it."""
    scripts.start(Row("a", 10**15 - 1, rating, "anna"), Row("b", 1, rating + (1 if rating == 0 else -1), "bert"))

    assert (str(10**15 - 1), str(rating)) == scripts.rank("a")[3][:2]
    assert ("anna", "a", rating) in rows_of(scripts.slice_at(2, 0))
    assert [("same", 2 if rating == 0 else 1, 2 if rating == 0 else 1, "")] == scripts.put(
        Row("a", 10**15 - 1, rating, "anna")
    )[1:]


def test_a_put_tells_the_lag_its_ranks_may_have(scripts: Scripts) -> None:
    """As a look-up would; there is none to tell where there are no ranks."""
    scripts.begin()
    assert "" == scripts.call(lua.PUT, BOARD_USERS_STATE, SOURCE, *ANNA.fields_and_before())[1]

    before = scripts.now_ms()
    scripts.apply(applied=before - 1500, ready="1")

    lag = scripts.call(lua.PUT, BOARD_USERS_STATE, SOURCE, *BERT.fields_and_before())[1]

    assert 1500 <= lag <= 1500 + scripts.now_ms() - before


def test_a_put_on_another_server_than_the_one_that_stamped_writes_and_ranks_nobody(scripts: Scripts) -> None:
    """The row is as good as any; how many others the board lacks is unknown."""
    scripts.start(ANNA)
    scripts.apply(applied=f"{scripts.now_ms()}@a1")

    assert ["ok", ("applied", "", "", "")] == scripts.put(BERT, source=f"{SOURCE}@b2")
    assert ["ok", ("same", 1, 2, "")] == scripts.put(BERT, source=f"{SOURCE}@a1")
    assert ["source"] == scripts.put(CARL, source="elsewhere@a1")


# Boards that must not be believed


def test_without_a_board_nothing_is_written(scripts: Scripts) -> None:
    """There is no fence to compare with, so the row waits for the load."""
    with scripts.unchanged():
        assert ["noepoch"] == scripts.put(ANNA)


def test_a_write_of_another_history_is_refused(scripts: Scripts) -> None:
    """Versions of two histories of Postgres cannot be compared."""
    scripts.start(ANNA)

    with scripts.unchanged():
        assert ["source"] == scripts.put(BERT, source="elsewhere")


def test_a_caller_that_does_not_know_its_history_is_believed(scripts: Scripts) -> None:
    """While Postgres has not been asked yet there is no source to compare."""
    scripts.start(ANNA)

    assert ["ok", ("applied", 1, 2, "")] == scripts.put(BERT, source="")


def test_a_loading_board_takes_rows_and_tells_no_rank(scripts: Scripts) -> None:
    """Half a board would give wrong ranks; the row itself is as good as any."""
    scripts.begin()

    assert ["ok", ("applied", "", "", "")] == scripts.put(ANNA._replace(before=1400))
    assert [("anna", "a", 1500)] == scripts.contents().board
    assert "1" == scripts.state("n")


def test_a_damaged_board_tells_no_rank_and_does_not_heal_by_accident(scripts: Scripts) -> None:
    """A member that was lost is missed even after a put has brought it back: others may be lost too."""
    scripts.start(ANNA, BERT)
    scripts.remove_by_hand(BERT)

    assert ["ok", ("applied", "", "", "")] == scripts.put(CARL)
    assert ["ok", ("applied", "", "", "")] == scripts.put(Row("b", 20, 1500, "bert"))
    assert ["notready"] == scripts.rank("a")


def test_the_board_keys_never_expire(scripts: Scripts) -> None:
    """A board key with a time to live would be gone one day without anybody noticing."""
    scripts.start(ANNA)
    scripts.put(BERT)

    assert [-1, -1, -1] == [scripts.client.ttl(key) for key in BOARD_USERS_STATE]


def test_a_full_redis_refuses_a_put_whole(scripts: Scripts) -> None:
    """Out of memory is noticed before the first write, so no row is half there."""
    scripts.start(ANNA)
    scripts.put(BERT)
    try:
        scripts.client.config_set("maxmemory", 1)
    except ResponseError:
        pytest.skip("this Redis does not let its configuration be changed")
    try:
        with scripts.unchanged(), pytest.raises(OutOfMemoryError):
            scripts.put(CARL, DORA)
    finally:
        scripts.client.config_set("maxmemory", 0)


# Calls that break the contract

GOOD = ("a", "11", "1500", encode("anna"), "")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="nothing"),
        pytest.param((SOURCE,), id="no row"),
        pytest.param((SOURCE, *GOOD[:4]), id="four fields"),
        pytest.param((SOURCE, *GOOD, "b"), id="six fields"),
        pytest.param((SOURCE, "", *GOOD[1:]), id="no id"),
        *(
            pytest.param((SOURCE, "a", version, "1500", encode("anna"), ""), id=f"version {version!r}")
            for version in ("", "x", "-1", "+1", "1.5", "1e3", " 1", "0x1", "nan", "1" * 16)
        ),
        *(
            pytest.param((SOURCE, "a", "11", score, encode("anna"), ""), id=f"score {score!r}")
            for score in ("", "x", "-1", "--", "1.5", "1e3", " 1", "0x1", "inf", "nan", "1" * 16)
        ),
        *(
            pytest.param((SOURCE, "a", "11", "1500", encoded, ""), id=f"encoded name {encoded!r}")
            for encoded in ("", "|", "~", "A~b", "A|")
        ),
        pytest.param((SOURCE, "a", "11", "-", encode("anna"), ""), id="a deleted user with a name"),
        *(
            pytest.param((SOURCE, *GOOD[:4], before), id=f"rating before {before!r}")
            for before in ("x", "-", "-1", "1.5", "(1", "inf")
        ),
        pytest.param((SOURCE, *GOOD, "b", "12", "x", encode("bert"), ""), id="only the second row is wrong"),
        pytest.param((SOURCE, *GOOD * MAX_ROWS, *GOOD), id="one row too many"),
    ],
)
def test_a_malformed_call_writes_nothing(scripts: Scripts, arguments: tuple[Any, ...]) -> None:
    """Everything is checked before the first write, because Redis rolls nothing back."""
    scripts.start(CARL)

    with scripts.unchanged(), pytest.raises(ResponseError, match=r"^BADARG put "):
        scripts.call(lua.PUT, BOARD_USERS_STATE, *arguments)


def test_the_largest_batch_is_taken(scripts: Scripts) -> None:
    """As many rows as the header says, every one of them placed."""
    scripts.start()

    reply = scripts.put(*(Row(f"id{number}", 1, 5000 - number, f"name{number}") for number in range(MAX_ROWS)))

    assert ["ok", *(("applied", place, place, "") for place in range(1, MAX_ROWS + 1))] == reply
    assert str(MAX_ROWS) == scripts.state("n")
    assert MAX_ROWS == scripts.client.zcard(KEYS.board)
