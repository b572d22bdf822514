"""A field of the users hash that somebody typed in by hand: it is healed, and stops nobody else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from service.model import NewUser, UserId
from service.order import encode
from tests.ranking.equality import ready

from .calls import KEYS, Row, Scripts

if TYPE_CHECKING:
    from service.ranking.ladder import Ladder

ANNA = Row("a", 11, 1500, "anna")
BERT = Row("b", 12, 1500, "bert")
CARL = Row("c", 13, 1600, "carl")
garbage = pytest.mark.parametrize("held", ["garbage", "", "|", "x|", "x|B", "|B", "-|B"])


@garbage
def test_a_put_heals_a_field_that_has_no_version(scripts: Scripts, held: str) -> None:
    """Anything is newer than what has no version; an error here would come after the first rows were written."""
    scripts.start(CARL)
    scripts.client.hset(KEYS.users, "a", held)

    assert ["ok", ("applied", 2, 3, ""), ("applied", 2, 2, "")] == scripts.put(BERT, ANNA)
    assert f"11|{encode('anna')}" == scripts.contents().users["a"]
    assert "3" == scripts.state("n")


@garbage
def test_a_page_heals_a_field_that_has_no_version(scripts: Scripts, held: str) -> None:
    """The tail meets every user again; one that it could not pass would keep it from all behind it."""
    scripts.start(CARL)
    scripts.client.hset(KEYS.users, "a", held)

    assert ["ok", 2] == scripts.apply(BERT, ANNA)
    assert [("carl", "c", 1600), ("anna", "a", 1500), ("bert", "b", 1500)] == scripts.contents().board
    assert "3" == scripts.state("n")


@garbage
def test_a_look_up_knows_nobody_by_a_field_that_has_no_version(scripts: Scripts, held: str) -> None:
    """Whoever it was is not on the board."""
    scripts.start(CARL)
    scripts.client.hset(KEYS.users, "a", held)

    assert [("", "", "", ""), ("13", "1600", 1, 1)] == scripts.rank("a", "c")[3:]


async def test_whatever_redis_says_a_committed_write_is_told_as_done(ladder: Ladder, scripts: Scripts) -> None:
    """An error of the mirror comes after the commit: it must not have the batch carried out once more."""
    await ready(ladder)
    # A server that refuses puts with an error that is a defect of ours.
    scripts.client.delete(KEYS.users)
    scripts.client.hset(KEYS.state, "n", "no number")

    written = await asyncio.gather(
        *(ladder.create(NewUser(UserId(f"user-{number}"), f"name-{number}", 1500)) for number in range(3)),
        return_exceptions=True,
    )

    assert [] == [answer for answer in written if isinstance(answer, BaseException)]
