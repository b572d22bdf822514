"""A mirror that lags, or lacks a write, is read as the table of `service.ranking.choice` says: on real stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import psycopg
import pytest
import redis

from service.app import opened
from service.errors import Unavailable
from service.model import Token, UserId, Version
from service.ranking.answers import ANY, Demand
from service.ranking.choice import FRESH_LAG_MS, PREFERRED_LAG_MS, USABLE_LAG_MS
from service.ranking.ladder import Ladder
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store.feed import LOCK, Feed
from service.store.mirror import Mirror
from tests.servers.proxy import Proxy, before_postgres, before_redis

from .readers import ADA, BOB, assert_seen, populate, timed, until

STATE = "{ladder}:state"
NO_CACHE = Demand(no_cache=True)


@pytest.fixture
async def catch_up(settings: Settings, mirror: Mirror) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Bring the board up to date, which nobody else does: the lock of those who would is taken."""
    tailer = Tailer(settings.database_url, mirror)

    async def cycle() -> None:
        async with Feed(settings.database_url) as feed:
            tailer.source = await feed.adopt()
            await tailer.cycle(feed)

    with psycopg.connect(settings.database_url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        await cycle()
        yield cycle


@pytest.fixture
async def doors(settings: Settings) -> AsyncIterator[tuple[Proxy, Proxy, Settings]]:
    """The ways to Redis and to Postgres, and settings that lead through both."""
    async with (
        before_redis(settings.redis_url) as (to_redis, redis_url),
        before_postgres(settings.database_url) as (to_postgres, database_url),
    ):
        through = msgspec.structs.replace(settings, redis_url=redis_url, database_url=database_url)
        yield to_redis, to_postgres, through


@pytest.fixture
async def ladder(
    catch_up: Callable[[], Awaitable[None]], doors: tuple[Proxy, Proxy, Settings]
) -> AsyncIterator[Ladder]:
    """A service behind the doors, with three users in the mirror and nobody to bring it anything."""
    async with opened(doors[2]) as running:
        await until(lambda: _trusted(running))
        await populate(running)
        await catch_up()
        yield running


async def _trusted(ladder: Ladder) -> bool:
    state = await ladder.mirror_state()
    return state is not None and ladder.trusts(state)


@pytest.fixture
async def other(settings: Settings, ladder: Ladder) -> AsyncIterator[Ladder]:  # noqa: ARG001  it fills the board
    """A second instance over the same stores, which has had no trouble."""
    async with opened(settings) as running:
        await until(lambda: _trusted(running))
        yield running


def lag(settings: Settings, milliseconds: int) -> None:
    """Make the board as old as this at least: it says itself since when it has everything."""
    with redis.Redis.from_url(settings.redis_url) as client:
        now, _ = client.time()
        client.hset(STATE, "applied", now * 1000 - milliseconds)


async def source(ladder: Ladder, demand: Demand = ANY) -> str:
    """What ranks, the same for a user and a page; "stale" in front if marked so."""
    user = await timed(ladder.user(BOB, demand=demand))
    page, _ = await timed(ladder.page(limit=2, demand=demand))
    assert (user.source, user.stale) == (page.source, page.stale)
    return f"{'stale ' if user.stale else ''}{user.source}"


async def test_a_lost_put_is_seen_by_its_instance_and_by_its_token(
    ladder: Ladder, other: Ladder, doors: tuple[Proxy, Proxy, Settings], catch_up: Callable[[], Awaitable[None]]
) -> None:
    """Elsewhere and without the token the old board is right: of a moment ago, and whole."""
    doors[0].lose_requests = True
    written = await timed(ladder.rate(ADA, 1600))
    doors[0].heal()
    assert "pending" == written.placed.outcome
    token = Demand(written.token)

    assert {"postgres"} == await assert_seen(ladder, written)
    assert {"postgres"} == await assert_seen(ladder, written, token)
    assert {"postgres"} == await assert_seen(other, written, token)
    assert "redis" == await source(other)
    assert 1500 == (await other.user(ADA)).value.standing.rating

    await catch_up()
    assert {"redis"} == await assert_seen(other, written, token)
    assert {"redis"} == await assert_seen(ladder, written)


async def test_a_put_whose_reply_is_lost_is_in_the_mirror(
    ladder: Ladder, other: Ladder, doors: tuple[Proxy, Proxy, Settings]
) -> None:
    """Its writer cannot know; a reader with its token finds it there."""
    doors[0].lose_replies = True
    written = await timed(ladder.rate(ADA, 1600))
    doors[0].heal()
    assert "pending" == written.placed.outcome

    assert {"postgres"} == await assert_seen(ladder, written)
    assert {"redis"} == await assert_seen(other, written, Demand(written.token))


async def test_a_token_counts_for_every_row_of_a_page(
    ladder: Ladder, other: Ladder, doors: tuple[Proxy, Proxy, Settings]
) -> None:
    """Whoever reads another user with the token of a write sees that write in their rank."""
    doors[0].lose_requests = True
    written = await timed(ladder.rate(ADA, 1600))
    doors[0].heal()
    answer = await other.user(BOB, demand=Demand(written.token))

    assert ("postgres", 2) == (answer.source, answer.value.standing.rank)
    assert 1 == (await other.user(BOB)).value.standing.rank


async def test_a_token_of_nobody_is_answered_by_postgres(other: Ladder) -> None:
    """It may be of a user that is on its way; a forged one gets nothing but the truth."""
    assert "postgres" == await source(other, Demand(Token(UserId("no:body"), Version(1))))


async def test_the_lag_decides(ladder: Ladder, settings: Settings) -> None:
    """Fresh, late, too late, for a reader who asks for nothing and for those who ask for more."""
    token = Demand((await ladder.rate(ADA, 1500)).token)
    expected = {
        0: ("redis", "redis", "redis"),
        FRESH_LAG_MS + 1: ("stale redis", "postgres", "postgres"),
        PREFERRED_LAG_MS + 1: ("postgres", "postgres", "postgres"),
        USABLE_LAG_MS + 1: ("postgres", "postgres", "postgres"),
    }
    found = {}
    for milliseconds in expected:
        lag(settings, milliseconds)
        found[milliseconds] = tuple([await source(ladder, demand) for demand in (ANY, NO_CACHE, token)])

    assert expected == found


async def test_without_postgres_the_mirror_serves_for_an_hour(
    ladder: Ladder, doors: tuple[Proxy, Proxy, Settings], settings: Settings
) -> None:
    """Marked, and then no more; whoever brings a token of a write that it lacks is refused at any time."""
    token = Demand((await ladder.rate(ADA, 1500)).token)
    doors[1].refuse()
    for milliseconds in (FRESH_LAG_MS + 1, PREFERRED_LAG_MS + 1, USABLE_LAG_MS - 60_000):
        lag(settings, milliseconds)
        for demand in (ANY, NO_CACHE, token):
            assert "stale redis" == await source(ladder, demand)
    with pytest.raises(Unavailable):
        await timed(ladder.user(BOB, demand=Demand(Token(ADA, Version(10**9)))))
    lag(settings, USABLE_LAG_MS + 1)
    with pytest.raises(Unavailable):
        await timed(ladder.user(BOB))
    with pytest.raises(Unavailable):
        await timed(ladder.page(limit=1))


async def test_a_user_without_a_cached_object_needs_postgres(
    ladder: Ladder, doors: tuple[Proxy, Proxy, Settings], settings: Settings
) -> None:
    """Postgres is away: the board still has the row, but not the rest of the user."""
    doors[1].refuse()
    with redis.Redis.from_url(settings.redis_url) as client:
        client.delete(f"user:{ADA}")
    with pytest.raises(Unavailable):
        await timed(ladder.user(ADA))
    page, _ = await timed(ladder.page(limit=3))

    assert ADA in {row.id for row in page.value.rows}
    assert BOB == (await timed(ladder.user(BOB))).value.user.id
