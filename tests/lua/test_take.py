"""take: a bucket gives what it holds, fills by the server's clock, and is nothing when it is full."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ResponseError

from service.store import lua
from service.store.buckets import Buckets

if TYPE_CHECKING:
    from service.store.redis import Client

    from .calls import Scripts

BUCKET = "bucket:192.0.2.1"


def take(scripts: Scripts, *, rate: int = 1, burst: int = 5, asked: int = 1, spare: int = 0) -> tuple[int, int]:
    """Tokens given and left."""
    status, given, left = scripts.call(lua.TAKE, [BUCKET], rate, burst, asked, spare)
    assert "ok" == status
    return given, left


def test_a_full_bucket_is_nothing_and_gives_its_burst(scripts: Scripts) -> None:
    """And then no more."""
    assert [(1, 4), (1, 3), (1, 2), (1, 1), (1, 0), (0, 0), (0, 0)] == [take(scripts) for _ in range(7)]


def test_many_are_asked_for_at_once(scripts: Scripts) -> None:
    """As many as there are, are given."""
    assert [(3, 2), (2, 0), (0, 0)] == [take(scripts, asked=asked) for asked in (3, 4, 1)]


def test_who_is_refused_pays_nothing(scripts: Scripts) -> None:
    """Else somebody who keeps asking would never be let in again."""
    take(scripts, asked=5)
    held = scripts.client.get(BUCKET)
    take(scripts, asked=5)

    assert held == scripts.client.get(BUCKET)


@pytest.mark.parametrize(("seconds", "tokens"), [(0.9, 0), (1.1, 1), (3.5, 3), (5.1, 5), (60, 5)])
def test_a_bucket_fills_with_time(scripts: Scripts, seconds: float, tokens: int) -> None:
    """One token a second here, up to the burst: the clock is turned by moving the instant in the bucket."""
    take(scripts, asked=5)
    full_at = int(scripts.client.get(BUCKET) or 0)
    scripts.client.set(BUCKET, full_at - int(seconds * 1_000_000), px=60_000)

    assert tokens == take(scripts, asked=5)[0]


def test_an_instant_of_another_clock_refuses_nobody(scripts: Scripts) -> None:
    """After a failover to a server whose clock is behind, a bucket would stay empty for as long as that."""
    take(scripts, asked=5)
    full_at = int(scripts.client.get(BUCKET) or 0)
    scripts.client.set(BUCKET, full_at + 30_000_000, px=60_000)

    assert [(1, 4), (4, 0), (0, 0)] == [take(scripts, asked=asked) for asked in (1, 5, 1)]


def test_a_bucket_is_forgotten_when_it_is_full(scripts: Scripts) -> None:
    """It lives as long as it takes to fill, and a millisecond."""
    take(scripts, asked=3)

    assert 2900 < scripts.client.pttl(BUCKET) <= 3001


def test_spare_tokens_come_from_the_upper_half(scripts: Scripts) -> None:
    """Who is near the limit gets exactly what is asked for."""
    assert [(4, 6), (1, 5), (1, 4)] == [take(scripts, burst=10, asked=1, spare=3) for _ in range(3)]


def test_what_stands_there_and_is_no_instant_is_a_full_bucket(scripts: Scripts) -> None:
    """Rather a burst too many than a client that is locked out for ever."""
    for content in ("x", "-1", "nan", "1e30", "9" * 40):
        scripts.client.set(BUCKET, content, px=60_000)

        assert (1, 4) == take(scripts)


@pytest.mark.parametrize(
    "arguments",
    [(), (1, 5, 1), (0, 5, 1, 0), (1, 0, 1, 0), (1, 5, 0, 0), (1, 5, -1, 0), (1, 5, "x", 0), (1, 5, 1, ""), (1, 5, 1, 0, 0),
     (1_000_001, 5, 1, 0), ("1e3", 5, 1, 0), ("nan", 5, 1, 0)],
)  # fmt: skip
def test_malformed_arguments_are_refused(scripts: Scripts, arguments: tuple[object, ...]) -> None:
    """Before anything is written."""
    with pytest.raises(ResponseError, match=r"^BADARG take "):
        scripts.call(lua.TAKE, [BUCKET], *arguments)

    assert not scripts.client.exists(BUCKET)


async def test_racing_clients_take_no_token_twice(clients: list[Client]) -> None:
    """Every process asks Redis, and Redis gives each token once: to a thousand who ask for 200, it gives 200."""
    buckets = [Buckets(client, rate=1, burst=200) for client in clients]
    grants = await asyncio.gather(*(buckets[turn % len(buckets)].take({"a": 1}) for turn in range(1000)))

    given = sum(grant["a"].given for grant in grants)
    assert 200 <= given <= 205
