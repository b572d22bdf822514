"""The limiter of one process: what it asks of the shared buckets, and what it does without them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from service.errors import Unavailable
from service.limiter import AHEAD_SECONDS, AWAY_SECONDS, OWN_BUCKETS, Limiter
from service.store.buckets import Buckets, Grant


class FakeBuckets(Buckets):
    """Buckets that never fill, and can be away."""

    def __init__(self, burst: int) -> None:  # no client: it asks nobody
        self.burst = burst
        self.left: dict[str, int] = {}
        self.calls: list[tuple[dict[str, int], int]] = []
        self.away = False

    async def take(self, asked: Mapping[str, int], *, spare: int = 0) -> dict[str, Grant]:
        self.calls.append((dict(asked), spare))
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable
        grants = {}
        for client, count in asked.items():
            left = self.left.get(client, self.burst)
            given = min(left, count + spare)
            self.left[client] = left - given
            grants[client] = Grant(given, left - given)
        return grants

    async def close(self) -> None:
        pass


class World:
    """A limiter over such buckets, and the time."""

    def __init__(self, *, rate: int = 100, burst: int = 200) -> None:
        self.now = 0.0
        self.buckets = FakeBuckets(burst)
        self.limiter = Limiter(self.buckets, rate=rate, burst=burst, clock=lambda: self.now)

    async def admitted(self, count: int, client: str = "a") -> int:
        """How many of so many requests at once pass."""
        return sum(verdict.passes for verdict in await asyncio.gather(*(self.limiter(client) for _ in range(count))))


async def test_requests_at_the_same_time_take_their_tokens_together() -> None:
    """One call for all, a number for each client."""
    world = World()
    await asyncio.gather(*(world.limiter(client) for client in "aabacb"))

    assert [({"a": 3, "b": 2, "c": 1}, 0)] == world.buckets.calls


async def test_exactly_the_burst_passes() -> None:
    """However many come at once; and another client has a bucket of its own."""
    world = World()

    assert 200 == await world.admitted(1000)
    assert 0 == await world.admitted(10)
    assert 10 == await world.admitted(10, "b")


async def test_everybody_is_told_how_many_are_left() -> None:
    """After their own: the numbers fall to 0 and stay there."""
    world = World(burst=3)
    verdicts = await asyncio.gather(*(world.limiter("a") for _ in range(5)))

    assert [(True, 2), (True, 1), (True, 0), (False, 0), (False, 0)] == verdicts


async def test_large_buckets_are_asked_now_and_then() -> None:
    """A thousandth is taken ahead, and spent without asking; nobody gets more than there is."""
    world = World(rate=1_000_000, burst=100_000)
    for _ in range(1000):
        assert (await world.limiter("a")).passes

    assert 10 == len(world.buckets.calls)
    assert world.buckets.left["a"] >= 100_000 - 1000 - 100


async def test_what_was_taken_ahead_does_not_keep() -> None:
    """Another process may need it by then."""
    world = World(rate=1_000_000, burst=100_000)
    await world.limiter("a")
    world.now += AHEAD_SECONDS * 1.1
    await world.limiter("a")

    assert 2 == len(world.buckets.calls)


async def test_without_redis_each_process_limits_on_its_own() -> None:
    """By the same rule; the request that found out is not lost."""
    world = World()
    world.buckets.away = True

    assert 200 == await world.admitted(500)
    world.now += 0.5
    assert 50 == await world.admitted(500)
    world.now += 100
    assert 200 == await world.admitted(500)


async def test_a_reply_that_is_not_understood_is_a_redis_that_is_away() -> None:
    """A server of another kind may answer anything; the request must not fail over it."""
    world = World()

    async def take(_: Mapping[str, int], *, spare: int = 0) -> dict[str, Grant]:
        raise ValueError(spare)

    world.buckets.take = take  # type: ignore[assignment]
    assert 200 == await world.admitted(300)


async def test_nobody_waits_for_a_redis_that_is_away() -> None:
    """It is tried once a second, beside the requests, and taken back when it answers."""
    world = World()
    world.buckets.away = True
    await world.admitted(1)
    assert 1 == len(world.buckets.calls)
    await world.admitted(5)
    assert 1 == len(world.buckets.calls)
    world.now += AWAY_SECONDS * 1.1
    await world.admitted(5)
    await world.limiter.close()
    assert 2 == len(world.buckets.calls)

    world.buckets.away = False
    world.now += AWAY_SECONDS * 1.1
    await world.admitted(5)
    await world.limiter.close()
    await world.admitted(5)

    assert ({"a": 5}, 0) == world.buckets.calls[-1]


async def test_a_crowd_of_addresses_takes_no_more_memory() -> None:
    """The clients that asked longest ago are forgotten."""
    world = World()
    world.buckets.away = True
    for number in range(OWN_BUCKETS + 500):
        await world.limiter(f"client{number}")

    assert OWN_BUCKETS == len(world.limiter._own._full_at)


def test_waiting_times_are_rounded_up() -> None:
    """Who comes back then is let in."""
    slow, fast = World(rate=1, burst=5).limiter, World(rate=100, burst=200).limiter

    assert (1, 1) == (slow.retry_after(), fast.retry_after())
    assert (0, 5, 2, 1) == (slow.reset(5), slow.reset(0), fast.reset(0), fast.reset(199))
