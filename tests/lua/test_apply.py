"""apply: what Postgres committed and how far that reaches move together, one batch after the other."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from service.order import encode
from service.store import lua

from .calls import BOARD_USERS_STATE, KEYS, MAX_ROWS, Row, Scripts

ANNA = Row("a", 11, 1500, "anna")
BERT = Row("b", 12, 1500, "bert")
CARL = Row("c", 13, 1600, "carl")


# Rows


def test_a_batch_puts_its_rows_on_the_board(scripts: Scripts) -> None:
    """Users, their fence and their number; the answer counts what was news."""
    scripts.begin()

    assert ["ok", 3] == scripts.apply(ANNA, BERT, CARL)

    found = scripts.contents()

    assert [("carl", "c", 1600), ("anna", "a", 1500), ("bert", "b", 1500)] == found.board
    assert {row.id: f"{row.version}|{encode(row.name)}" for row in (ANNA, BERT, CARL)} == found.users
    assert "3" == found.state["n"]


def test_only_news_is_counted_and_written(scripts: Scripts) -> None:
    """Rows that the board has in that or a later version are passed over."""
    scripts.start(ANNA, Row("b", 20, 1700, "bert"))

    assert ["ok", 1] == scripts.apply(ANNA, BERT, CARL)
    assert [("bert", "b", 1700), ("carl", "c", 1600), ("anna", "a", 1500)] == scripts.contents().board


def test_a_batch_knows_better_than_the_floor(scripts: Scripts) -> None:
    """Its rows were read from Postgres after the floor was set, so an unknown old user exists."""
    scripts.start(floor=100)

    assert ["ok", 1] == scripts.apply(ANNA)
    assert [("anna", "a", 1500)] == scripts.contents().board


def test_a_batch_deletes_and_renames(scripts: Scripts) -> None:
    """A tombstone takes the member away, a new name replaces it; the size follows."""
    scripts.start(ANNA, BERT, CARL)

    assert ["ok", 2] == scripts.apply(Row("a", 20), Row("b", 21, 1500, "zoe"))

    found = scripts.contents()

    assert [("carl", "c", 1600), ("zoe", "b", 1500)] == found.board
    assert {"a": "20|", "b": f"21|{encode('zoe')}", "c": f"13|{encode('carl')}"} == found.users
    assert "2" == found.state["n"]


def test_a_row_that_a_put_brought_first_is_no_news(scripts: Scripts) -> None:
    """The tail meets every write again and finds it done; a tail that lags undoes nothing."""
    scripts.start(ANNA)
    scripts.put(Row("a", 20, 1700, "anna"))
    before = scripts.contents()

    assert ["ok", 0] == scripts.apply(ANNA, Row("a", 20, 1700, "anna"))
    assert (before.board, before.users) == (scripts.contents().board, scripts.contents().users)


def test_a_user_who_comes_twice_is_written_as_if_row_by_row(scripts: Scripts) -> None:
    """Renamed twice, deleted and created, created and deleted, and late for oneself: the newest row stands, once."""
    scripts.start(ANNA, BERT)

    assert ["ok", 7] == scripts.apply(
        Row("a", 20, 1500, "zoe"),
        Row("b", 21),
        Row("c", 22, 1600, "carl"),
        Row("a", 23, 1700, "ada"),
        Row("a", 19, 1800, "late"),
        Row("b", 24, 1400, "bea"),
        Row("c", 25),
        Row("c", 25),
        Row("d", 26, 1500, "dora"),
    )

    found = scripts.contents()

    assert [("ada", "a", 1700), ("dora", "d", 1500), ("bea", "b", 1400)] == found.board
    assert {"a": f"23|{encode('ada')}", "b": f"24|{encode('bea')}", "c": "25|", "d": f"26|{encode('dora')}"} == (
        found.users
    )
    assert "3" == found.state["n"]


@pytest.mark.parametrize("before", ["unknown", "renamed", "deleted"])
def test_a_batch_takes_as_many_commands_as_a_row(scripts: Scripts, before: str) -> None:
    """A command for every row made a load take twice as long: none of them is one per row."""
    rows = [Row(f"id{number}", 2, 1500, f"name{number}") for number in range(MAX_ROWS)]
    batch = [Row(row.id, 3) for row in rows] if before == "deleted" else rows
    scripts.start(*([] if before == "unknown" else [row._replace(version=1, name=f"old{row.id}") for row in rows]))
    token = scripts.state("tok")
    scripts.client.config_resetstat()

    assert ["ok", MAX_ROWS] == scripts.apply(*batch, token=token)

    calls = {name: told["calls"] for name, told in scripts.client.info("commandstats").items()}
    calls.pop("cmdstat_config|resetstat", None)
    assert sum(calls.values()) <= 8, calls


# Marks


def test_marks_move_with_the_batch_and_stay_without_it(scripts: Scripts) -> None:
    """Each mark that is given is set, each that is left out keeps its value; the token always moves."""
    scripts.begin()
    begun = scripts.contents().state

    scripts.apply(next_token="second")
    assert {**begun, "tok": "second"} == scripts.contents().state

    scripts.apply(next_token="third", checkpoint=("800", "a"), loaded="b", applied=12345, ready="1")
    marks = {"tok": "third", "cx": "800", "ci": "a", "ld": "b", "applied": "12345", "ready": "1"}
    assert {**begun, **marks} == scripts.contents().state

    scripts.apply(next_token="fourth")
    assert {**begun, **marks, "tok": "fourth"} == scripts.contents().state

    scripts.apply(next_token="fifth", checkpoint=("801", ""))
    assert {**begun, **marks, "tok": "fifth", "cx": "801", "ci": ""} == scripts.contents().state


def test_a_batch_notes_whose_clock_it_was_stamped_by(scripts: Scripts) -> None:
    """With the mark, and only then; a reign begins whenever another server stamps."""
    scripts.begin()
    scripts.apply(next_token="second", applied="1000@a1")
    assert ("1000", "a1", "second") == tuple(map(scripts.state, ("applied", "run", "reign")))

    scripts.apply(next_token="third", applied="2000@a1")
    scripts.apply(next_token="fourth")
    assert ("2000", "a1", "second") == tuple(map(scripts.state, ("applied", "run", "reign")))

    scripts.apply(next_token="fifth", applied="3000@b2")
    assert ("3000", "b2", "fifth") == tuple(map(scripts.state, ("applied", "run", "reign")))

    scripts.apply(next_token="sixth", applied="4000")
    assert ("4000", "", "sixth") == tuple(map(scripts.state, ("applied", "run", "reign")))


def test_a_board_is_read_from_the_batch_that_says_so(scripts: Scripts) -> None:
    """Ranks are told with the ready mark and not before, however many rows are there."""
    scripts.begin()
    scripts.apply(ANNA)
    assert ["notready"] == scripts.rank("a")

    scripts.apply(BERT, ready="1", applied=scripts.now_ms())

    assert ("12", "1500", 1, 2) == scripts.rank("b")[3]


# The chain of batches


def test_a_batch_that_is_repeated_is_refused(scripts: Scripts) -> None:
    """After a lost answer the caller asks the board where it stands; the same batch again would be a guess."""
    scripts.start(ANNA)
    token = scripts.state("tok")
    assert ["ok", 1] == scripts.apply(BERT, token=token)

    with scripts.unchanged():
        assert ["token"] == scripts.apply(BERT, token=token)


def test_a_batch_behind_a_lost_one_is_refused(scripts: Scripts) -> None:
    """Of batches sent together, one that does not find its predecessor's token leaves no gap behind it."""
    scripts.start(ANNA)

    with scripts.unchanged():
        assert ["token"] == scripts.apply(
            CARL, token="the one that was lost would have left this", checkpoint=("900", "c")
        )


def test_a_batch_for_a_board_that_began_anew_is_refused(scripts: Scripts) -> None:
    """Its rows may be older than the new board's floor, and its cursor belongs to another walk."""
    scripts.start(ANNA)
    scripts.begin(seen="epoch", epoch="another", token="token")

    with scripts.unchanged():
        assert ["epoch"] == scripts.apply(BERT, epoch="epoch", token="token")


@pytest.mark.parametrize(("epoch", "token"), [("", ""), ("epoch", "token"), ("epoch", "")])
def test_without_a_board_every_batch_is_refused(scripts: Scripts, epoch: str, token: str) -> None:
    """Not even one that knows nothing writes on a board that nobody has begun."""
    with scripts.unchanged():
        assert ["epoch"] == scripts.apply(ANNA, epoch=epoch, token=token)


def test_a_state_that_lost_its_token_takes_no_batch(scripts: Scripts) -> None:
    """Not even one that presents the token "": only a new beginning helps."""
    scripts.start(ANNA)
    scripts.client.hdel(KEYS.state, "tok")

    with scripts.unchanged():
        assert ["token"] == scripts.apply(BERT, token="")


# Calls that break the contract

MARKS = ("epoch", "token", "next", "", "", "", "", "")
GOOD = ("a", "11", "1500", encode("anna"))


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="nothing"),
        pytest.param(MARKS[:5], id="five arguments"),
        pytest.param(MARKS[:7], id="seven arguments"),
        pytest.param((*MARKS, "a"), id="one field"),
        pytest.param((*MARKS, *GOOD[:3]), id="three fields"),
        pytest.param((*MARKS, *GOOD, "b"), id="five fields"),
        *(
            pytest.param((*MARKS[:6], applied, ""), id=f"applied {applied!r}")
            for applied in ("x", "-1", "1.5", "nan", "1x", "@x", "1@x@y")
        ),
        *(pytest.param((*MARKS[:7], ready), id=f"ready {ready!r}") for ready in ("0", "yes", "11")),
        pytest.param((*MARKS, "", *GOOD[1:]), id="no id"),
        *(
            pytest.param((*MARKS, "a", version, *GOOD[2:]), id=f"version {version!r}")
            for version in ("", "x", "-1", "1.5", "1e3", "1" * 16)
        ),
        *(
            pytest.param((*MARKS, "a", "11", score, encode("anna")), id=f"score {score!r}")
            for score in ("", "x", "-1", "1.5", "inf", "1" * 16)
        ),
        *(
            pytest.param((*MARKS, "a", "11", "1500", encoded), id=f"encoded name {encoded!r}")
            for encoded in ("", "|", "~", "A~b")
        ),
        pytest.param((*MARKS, "a", "11", "-", encode("anna")), id="a deleted user with a name"),
        pytest.param((*MARKS, *GOOD, "b", "12", "x", encode("bert")), id="only the second row is wrong"),
        pytest.param((*MARKS, *GOOD * MAX_ROWS, *GOOD), id="one row too many"),
    ],
)
def test_a_malformed_call_writes_nothing(scripts: Scripts, arguments: tuple[Any, ...]) -> None:
    """Everything is checked before the first write, because Redis rolls nothing back."""
    scripts.begin()
    scripts.apply(CARL, next_token="token")

    with scripts.unchanged(), pytest.raises(ResponseError, match=r"^BADARG apply "):
        scripts.call(lua.APPLY, BOARD_USERS_STATE, *arguments)


def test_the_largest_batch_is_taken(scripts: Scripts) -> None:
    """As many rows as the header says."""
    scripts.begin()

    assert ["ok", MAX_ROWS] == scripts.apply(
        *(Row(f"id{number}", 1, 1500, f"name{number}") for number in range(MAX_ROWS))
    )
    assert str(MAX_ROWS) == scripts.state("n")
