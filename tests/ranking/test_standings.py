"""Ranks, neighbours, lists and histograms: Redis, SQL and a Python model say the same, on random boards full of ties."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import NotFound
from service.model import (
    MAX_RATING,
    MIN_RATING,
    QUANTILES,
    Around,
    Board,
    Buckets,
    Counted,
    NewRating,
    NewUser,
    Page,
    Row,
    UserId,
)
from service.ranking.answers import Ranked, percentile
from service.ranking.fallback import Fallback
from service.ranking.ladder import Ladder
from service.store.mirror import MAX_BUCKETS
from tests.ranking.equality import ready
from tests.ranking.model import board

from .test_equal_answers import Pair, boards, pair, ratings, thorough

__all__ = ["pair"]

WIDE = [("above", 1501), *((f"tied{number}", 1500) for number in range(250)), ("below", 1499)]

spans = st.builds(
    lambda ends, width: Buckets(min(ends), max(ends), max(width, math.ceil(4901 / MAX_BUCKETS))),
    st.tuples(ratings, ratings),
    st.integers(1, 6000),
)


def around(rows: list[Row], user_id: UserId, radius: int) -> list[Row]:
    """A full window as long as there are so many rows."""
    place = next(index for index, row in enumerate(rows) if row.id == user_id)
    first = max(0, min(place - radius, len(rows) - 2 * radius - 1))
    return rows[first : first + 2 * radius + 1]


def counted(rows: list[Row], buckets: Buckets) -> Counted:
    """Straight from the contract's words."""
    held = [row.rating for row in rows]
    quantiles = [
        next(r for r in range(MIN_RATING, MAX_RATING + 1) if 100 * sum(h <= r for h in held) >= percent * len(held))
        for percent in (QUANTILES if held else ())
    ]
    users = [sum(low <= rating <= high for rating in held) for low, high in buckets.bounds()]
    return Counted(Board(len(held)), sum(rating > buckets.high for rating in held), users, quantiles)


async def assert_agreed(pair: Pair, rows: list[tuple[str, int]], radius: int, buckets: Buckets) -> None:
    """Every one of these reads, of every user."""
    expected = board(await pair.start(rows))
    fallback = Fallback(pair.ledger)
    ids = [row.id for row in expected][::-1]
    asked = (*ids[:2], UserId("nobody"), *ids[2:])

    ((roster, _),) = await pair.mirror.rosters([asked], source=pair.source)
    assert [*expected[::-1][:2], None, *expected[::-1][2:]] == roster.rows
    assert roster.rows == (await fallback.rows(asked)).value.rows

    for row in expected[:: max(1, len(expected) // 20)]:
        (page,) = await pair.mirror.neighbors([Around(row.id, radius)], source=pair.source)
        stored = await pair.ledger.neighbors(Around(row.id, radius))
        assert isinstance(page, Page)
        assert isinstance(stored, Page)
        assert around(expected, row.id, radius) == page.rows == stored.rows
        assert len(expected) == page.board.total == stored.board.total
        ranked = (await fallback.rank(row.id, exact=True)).value
        assert Ranked(row.id, row.rating, row.rank, row.position, len(expected)) == ranked

    (found,) = await pair.mirror.histograms([buckets], source=pair.source)
    assert isinstance(found, Counted)
    model = counted(expected, buckets)
    answer = (await fallback.count(buckets, exact=True)).value
    assert (model.above, model.users, model.quantiles) == (found.above, found.users, found.quantiles)
    assert model == answer
    assert len(expected) == found.board.total


@thorough(150)
@given(rows=boards, radius=st.integers(1, 8), buckets=spans)
async def test_redis_sql_and_model_agree(
    pair: Pair, rows: list[tuple[str, int]], radius: int, buckets: Buckets
) -> None:
    """Rows, windows that are full at both ends, histograms whose last bucket is cut, quantiles."""
    await assert_agreed(pair, rows, radius, buckets)


@pytest.mark.parametrize("radius", [1, 5, 100])
async def test_they_agree_inside_a_wide_tie(pair: Pair, radius: int) -> None:
    """One rank, positions by the bytes of the name, and quantiles that all are the tie."""
    await assert_agreed(pair, WIDE, radius, Buckets(MIN_RATING, MAX_RATING, 50))


async def test_whoever_is_not_there_has_no_neighbours(pair: Pair) -> None:
    """By the mirror no row, by Postgres an error."""
    await pair.start([("anna", 1500)])
    (page,) = await pair.mirror.neighbors([Around(UserId("nobody"), 5)], source=pair.source)

    assert isinstance(page, Page)
    assert [] == page.rows
    assert isinstance(await pair.ledger.neighbors(Around(UserId("nobody"), 5)), NotFound)


@thorough(100)
@given(rows=boards, asked=ratings)
async def test_equal_ratings_have_equal_percentiles(pair: Pair, rows: list[tuple[str, int]], asked: int) -> None:
    """A leaderboard library that counts positions gives two equal players 60 and 80; and a rating need not be held."""
    expected = board(await pair.start(rows))
    held = [row.rating for row in expected]
    (found,) = await pair.mirror.histograms([Buckets(asked, asked)], source=pair.source)

    assert isinstance(found, Counted)
    assert [held.count(asked)] == found.users
    share = round(100 * sum(rating <= asked for rating in held) / len(held), 2) if held else None
    assert share == percentile(above=found.above, total=found.board.total)
    for row in expected:
        answer = (await Fallback(pair.ledger, exact_users=-1).rank(row.id, exact=False)).value
        assert row.rank == answer.rank
        assert round(100 * sum(rating <= row.rating for rating in held) / len(held), 2) == percentile(
            above=answer.rank - 1, total=answer.total
        )


# Through the product


async def test_a_narrow_histogram_is_counted_by_postgres(ladder: Ladder) -> None:
    """More buckets than one call may count are of one instant all the same, and equal in sum."""
    await ready(ladder)
    for number in range(30):
        await ladder.create(NewUser(UserId(f"u{number}"), f"user{number}", 1000 + number * number))
    narrow = await ladder.standings.count(Buckets(MIN_RATING, MAX_RATING, 1))
    wide = await ladder.standings.count(Buckets(MIN_RATING, MAX_RATING, 10))

    assert ("postgres", "redis") == (narrow.source, wide.source)
    sums = [sum(narrow.value.users[first : first + 10]) for first in range(0, 4901, 10)]
    assert sums == wide.value.users
    assert narrow.value.quantiles == wide.value.quantiles


async def test_a_user_on_the_way_to_the_mirror_is_shown_by_every_read(ladder: Ladder) -> None:
    """Whom the mirror does not know Postgres answers for: the list, the window and the rank have them at once."""
    await ready(ladder)
    await ladder.create(NewUser(UserId("here"), "here", 1500))
    await ladder._ledger.create([NewUser(UserId("coming"), "coming", 1500)])
    ids = [UserId("here"), UserId("nobody"), UserId("coming")]
    rows = (await ladder.standings.rows(ids)).value.rows

    assert [(2, 1), None, (1, 1)] == [row and (row.position, row.rank) for row in rows]
    assert 1 == (await ladder.standings.rank(UserId("coming"))).value.position
    page = (await ladder.standings.neighbors(UserId("coming"), radius=1)).value
    assert ["coming", "here"] == [row.id for row in page.rows]
    with pytest.raises(NotFound):
        await ladder.standings.rank(UserId("nobody"))
    with pytest.raises(NotFound):
        await ladder.standings.neighbors(UserId("nobody"), radius=1)


async def test_rates_seen_through_the_ledger_alone_are_in_its_counts(ladder: Ladder) -> None:
    """An exact count is of now: a change that only Postgres has is in it."""
    await ready(ladder)
    written = await ladder.create(NewUser(UserId("ann"), "ann", 1500))
    await ladder._ledger.rate([NewRating(written.user.id, 1600)])
    answer = await ladder.fallback.count(Buckets(1600, 1600), exact=True)

    assert [1] == answer.value.users
