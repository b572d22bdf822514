"""What the continuous check counts: a difference that stays, at each horizon, and no write on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from service.errors import Unavailable
from service.model import User, UserId, Version
from service.order import encode
from service.ranking.sampling import HORIZONS, MAX_OPEN, Sampler
from service.store.inspection import Entry

ADA = UserId("ada")
NOON = datetime(2025, 1, 1, tzinfo=UTC)


def user(version: int, rating: int = 1500, name: str = "ada") -> User:
    """What Postgres says."""
    return User(ADA, name, rating, Version(version), NOON, NOON)


def entry(version: int, rating: int = 1500, name: str = "ada") -> Entry:
    """What the mirror says."""
    return Entry(f"{version}|{encode(name)}".encode(), rating)


class State:
    """A board that may be read."""

    ready = intact = True
    source = epoch = "here"


class Stores:
    """Both stores, and the time: each look finds the next of the pairs, the last one for ever."""

    def __init__(self, *looks: tuple[Entry, User | None]) -> None:
        self.looks = list(looks)
        self.asked: list[str] = []
        self.now = 0.0
        self.times: list[float] = []
        self.fails: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def state(self) -> State:
        if self.gate:
            await self.gate.wait()
        if self.fails:
            raise self.fails
        return State()

    async def peek(self, ids: Sequence[UserId], *, epoch: str) -> dict[UserId, Entry]:
        assert epoch == "here"
        self.asked.append("redis")
        self.times.append(self.now)
        return {ids[0]: self.looks[0][0]}

    async def users(self, ids: Sequence[UserId]) -> dict[UserId, User]:
        self.asked.append("postgres")
        found = self.looks[0][1]
        if len(self.looks) > 1:
            del self.looks[0]
        return {ids[0]: found} if found else {}

    def sampler(self, *, share: float = 1, chance: Callable[[], float] = lambda: 0.5) -> Sampler:
        """A sampler over these stores."""
        stores = cast("Any", self)
        return Sampler(stores, stores, stores, source=lambda: "here", share=share, sleep=self.sleep, chance=chance)


async def settle(sampler: Sampler) -> None:
    """Wait for what is open."""
    await asyncio.gather(*sampler._open)


async def test_equal_is_equal() -> None:
    """One look, Redis first: what was seen there was committed before Postgres was asked."""
    stores = Stores((entry(7), user(7)))
    sampler = stores.sampler()
    sampler.saw(ADA)
    await settle(sampler)

    assert ["redis", "postgres"] == stores.asked
    assert (1, 1, 0) == (sampler.sampled, sampler.agreed, sum(sampler.mismatches.values()))


@pytest.mark.parametrize(
    "look",
    [
        (entry(7, rating=1501), user(7)),
        (entry(7, name="eve"), user(7)),
        (Entry(b"7|" + encode("ada").encode(), None), user(7)),
        (entry(8), user(7)),
        (entry(6), user(7)),
        (Entry(b"", None), user(7)),
        (entry(7), None),
    ],
    ids=["rating", "name", "no place", "ahead", "stale", "missing", "orphan"],
)
async def test_a_difference_that_stays_is_counted_at_each_horizon(look: tuple[Entry, User | None]) -> None:
    """After 1, 10 and 60 seconds, and told once, at the end."""
    stores = Stores(look)
    sampler = stores.sampler()
    with capture_logs() as logs:
        sampler.saw(ADA)
        await settle(sampler)

    assert [0, *HORIZONS] == stores.times
    assert dict.fromkeys(HORIZONS, 1) == sampler.mismatches
    assert 0 == sampler.agreed
    (line,) = logs
    assert ("check.mismatch", "ada", look[0].version) == (line["event"], line["user"], line["mirror"])
    assert (look[1].version if look[1] else None) == line["ledger"]


async def test_a_write_on_its_way_is_none() -> None:
    """The mirror has it a second later."""
    sampler = Stores((entry(6), user(7)), (entry(7), user(7))).sampler()
    sampler.saw(ADA)
    await settle(sampler)

    assert (1, 0) == (sampler.agreed, sum(sampler.mismatches.values()))


async def test_a_user_who_is_written_all_the_time_is_none() -> None:
    """Always a write on its way, but never the same one."""
    sampler = Stores((entry(6), user(7)), (entry(8), user(9))).sampler()
    sampler.saw(ADA)
    await settle(sampler)

    assert (1, 0) == (sampler.agreed, sum(sampler.mismatches.values()))


async def test_one_that_heals_late_is_counted_as_long_as_it_was_there() -> None:
    """After 1 and 10 seconds it was; not after 60."""
    wrong = (entry(6), user(7))
    sampler = Stores(wrong, wrong, wrong, (entry(7), user(7))).sampler()
    with capture_logs() as logs:
        sampler.saw(ADA)
        await settle(sampler)

    assert {1: 1, 10: 1, 60: 0} == sampler.mismatches
    assert [] == logs


@pytest.mark.parametrize(("share", "chance", "sampled"), [(0, 0.0, 0), (0.1, 0.1, 0), (0.1, 0.09, 1), (1, 0.999, 1)])
async def test_a_share_is_sampled(share: float, chance: float, sampled: int) -> None:
    """None of zero, all of one."""
    sampler = Stores((entry(7), user(7))).sampler(share=share, chance=lambda: chance)
    sampler.saw(ADA)
    await settle(sampler)

    assert sampled == sampler.sampled


@pytest.mark.parametrize("error", [Unavailable(), ZeroDivisionError()])
async def test_nobody_hears_of_a_store_that_fails(error: Exception) -> None:
    """It is neither right nor wrong then."""
    stores = Stores((entry(7), user(7)))
    stores.fails = error
    sampler = stores.sampler()
    with capture_logs():
        sampler.saw(ADA)
        await settle(sampler)

    assert (1, 0, 0) == (sampler.unknown, sampler.agreed, sum(sampler.mismatches.values()))


async def test_what_is_open_is_bounded_and_ends_with_the_service() -> None:
    """Stores that hang cost a few tasks, which are gone after the close."""
    stores = Stores((entry(7), user(7)))
    stores.gate = asyncio.Event()
    sampler = stores.sampler()
    for _ in range(MAX_OPEN + 5):
        sampler.saw(ADA)
    await asyncio.sleep(0)
    assert (MAX_OPEN, 5) == (len(sampler._open), sampler.dropped)

    await sampler.close()
    assert not sampler._open
    assert [] == stores.asked
