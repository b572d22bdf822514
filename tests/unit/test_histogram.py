"""Ranks from a histogram are the model's, and it is asked for no more often and no later than it says."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Unavailable
from service.model import MAX_RATING, MIN_RATING, Census, User, UserId, Version
from service.ranking.histogram import FRESH_SECONDS, USABLE_SECONDS, Histogram, Histograms
from tests.ranking.model import board

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ratings = st.sampled_from([MIN_RATING, 1499, 1500, 1501, MAX_RATING]) | st.integers(MIN_RATING, MAX_RATING)


@given(st.lists(ratings, max_size=60), ratings)
def test_it_ranks_as_the_model_does(held: list[int], asked: int) -> None:
    """Everybody on a board with ties and at both ends, and a rating that nobody need hold."""
    users = {
        UserId(f"{number}"): User(UserId(f"{number}"), f"name{number:03}", rating, Version(1), NOON, NOON)
        for number, rating in enumerate(held)
    }
    histogram = Histogram(census(held), asked_at=0)

    assert [row.rank for row in board(users)] == [1 + histogram.above(row.rating) for row in board(users)]
    assert sum(rating > asked for rating in held) == histogram.above(asked)
    assert len(held) == histogram.total


def census(held: list[int]) -> Census:
    """What Postgres would answer about users of these ratings."""
    return Census("1:1:", NOON, {rating: held.count(rating) for rating in held})


class Ledger:
    """Answers when it is told to, by a clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked = 0
        self.up = True
        self.gate = asyncio.Event()
        self.gate.set()
        self.histograms = Histograms(self.histogram, clock=lambda: self.now)

    async def histogram(self) -> Census:
        """One user more each time."""
        self.asked += 1
        users = [1500] * self.asked
        await self.gate.wait()
        if not self.up:
            raise Unavailable
        return census(users)

    async def total(self) -> int:
        """The total by the newest histogram."""
        return (await self.histograms.newest()).total


async def test_it_is_asked_for_once_a_second() -> None:
    ledger = Ledger()
    totals = []
    for _ in range(4):
        totals += [await ledger.total(), await ledger.total()]
        ledger.now += FRESH_SECONDS * 0.75

    assert [1, 1, 1, 1, 2, 2, 2, 2] == totals
    assert 2 == ledger.asked


async def test_a_herd_asks_once() -> None:
    """Those who come while the query is under way too: it is young enough for them."""
    ledger = Ledger()
    ledger.gate.clear()
    first = [asyncio.create_task(ledger.total()) for _ in range(20)]
    while not ledger.asked:
        await asyncio.sleep(0)
    later = [asyncio.create_task(ledger.total()) for _ in range(20)]
    await asyncio.sleep(0)
    ledger.gate.set()

    assert {1} == set(await asyncio.gather(*first, *later))
    assert 1 == ledger.asked


async def test_its_age_counts_from_the_question() -> None:
    """A query that took long gives a histogram that is old when it comes."""
    ledger = Ledger()
    ledger.gate.clear()
    asking = asyncio.create_task(ledger.total())
    while not ledger.asked:
        await asyncio.sleep(0)
    ledger.now += FRESH_SECONDS + 0.1
    ledger.gate.set()

    assert 1 == await asking
    assert 2 == await ledger.total()


async def test_an_old_one_serves_for_two_seconds_while_postgres_fails() -> None:
    """And not a moment longer."""
    ledger = Ledger()
    await ledger.total()
    ledger.up = False
    ledger.now += USABLE_SECONDS
    assert 1 == await ledger.total()
    ledger.now += 0.01

    with pytest.raises(Unavailable):
        await ledger.total()
