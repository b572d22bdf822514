"""
A replica whose clock is behind is promoted, without the last writes: no answer claims to be fresher than it is.

How far a board lags is a difference of two times. After a promotion one of them is of another server's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial

import msgspec
import psycopg
import pytest

from service.api.health import examine
from service.app import opened
from service.model import NewUser, UserId
from service.ranking.ladder import Ladder
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store import redis as redis_store
from service.store.feed import LOCK, Feed
from service.store.mirror import Mirror
from tests.api.serving import serving as serving_workers
from tests.api.serving import wait_until
from tests.ranking.equality import assert_mirror_equals_ledger, ledger_board, mirror_board, ready
from tests.servers.background import background
from tests.servers.own_haproxy import own_haproxy
from tests.servers.proxy import Proxy
from tests.servers.redis_pair import Pair, redis_pair, way_to

from .clients import insert, measured
from .readers import served_by_redis, until
from .traffic import traffic

USERS = [UserId(f"user{number}") for number in range(20)]
WRITTEN = USERS[:3]
READ_SECONDS = 0.8
ENOUGH = 100
HEALED_SECONDS = 5.0
"""Some half a second; the rest is for a busy machine."""


@contextlib.asynccontextmanager
async def feeding(settings: Settings, *, alive: bool) -> AsyncIterator[Tailer | None]:
    """Leave the feeding to the service; or take the lock, so that only the test feeds, once at first."""
    if alive:
        yield None
        return
    client = redis_store.connect_feed(settings.redis_url)
    with psycopg.connect(settings.database_url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        tailer = Tailer(settings.database_url, Mirror(client))
        await cycle(tailer, settings)
        yield tailer
    await client.aclose()


async def cycle(tailer: Tailer, settings: Settings) -> bool:
    """Bring the board up to date once."""
    async with Feed(settings.database_url) as feed:
        tailer.source = await feed.adopt()
        await tailer.cycle(feed)
    return True


def take_over(holder: psycopg.Connection[tuple[object, ...]]) -> None:
    """Take the lock from the process that feeds, whose session is ended; no process feeds from here on."""
    holder.execute("SET lock_timeout = '10s'")
    pid = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = %s::bigint & 4294967295"
    with psycopg.connect(holder.info.dsn, autocommit=True) as killer:
        waiting = threading.Thread(target=holder.execute, args=("SELECT pg_advisory_lock(%s)", (LOCK,)))
        waiting.start()
        wait_until(lambda: killer.execute(f"{pid.replace('granted', 'NOT granted')}", (LOCK,)).fetchone())
        killer.execute(f"SELECT pg_terminate_backend(pid) FROM ({pid}) AS feeding", (LOCK,))
        waiting.join()


class Reader:
    """Reads ranks all the time, and compares each with what was acknowledged before the lag that it announces."""

    def __init__(self, ladder: Ladder) -> None:
        self._ladder = ladder
        self._written: dict[UserId, tuple[int, float]] = {}
        self.wrong: list[str] = []
        self.sources: Counter[str] = Counter()

    async def write(self, user_id: UserId, rating: int) -> None:
        """Rate a user."""
        await self._ladder.rate(user_id, rating)
        self._written[user_id] = (rating, time.monotonic())

    async def read_for(self, seconds: float, *ladders: Ladder) -> None:
        """Read every user that was rated, in other processes, too."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for ladder in (self._ladder, *ladders):
                for user_id in self._written:
                    await self.read(ladder, user_id)

    async def read(self, ladder: Ladder, user_id: UserId) -> None:
        """Read one user's rank."""
        asked = time.monotonic()
        answer = await ladder.standings.rank(user_id)
        rating, known = self._written[user_id]
        is_unknown = answer.source == "redis" and answer.lag_ms is None
        assert answer.stale or not is_unknown
        self.sources["unknown" if is_unknown else answer.source] += 1
        if is_unknown or answer.value.rating == rating:
            return
        if known < asked - (answer.lag_ms or 0) / 1000:
            self.wrong.append(
                f"{user_id}: {answer.value.rating} instead of {rating}, acknowledged {asked - known:.3f} s before,"
                f" from {answer.source} with lag {answer.lag_ms}, stale {answer.stale}"
            )


@contextlib.asynccontextmanager
async def serving(
    settings: Settings, pair: Pair, *, fed: bool
) -> AsyncIterator[tuple[Ladder, Proxy, str, Tailer | None]]:
    """The product over the first of both, its users on the second, too."""
    async with (
        way_to(pair) as (proxy, url),
        feeding(msgspec.structs.replace(settings, redis_url=url), alive=fed) as tailer,
        opened(msgspec.structs.replace(settings, redis_url=url)) as ladder,
    ):
        await ready(ladder)
        for number, user_id in enumerate(USERS):
            await ladder.create(NewUser(user_id, f"player-{user_id}", 1000 + number))
        await until(lambda: served_by_redis(ladder))
        await until(lambda: asyncio.to_thread(pair.has_caught_up))
        yield ladder, proxy, url, tailer


@pytest.mark.parametrize(
    ("behind", "fed", "wait"),
    [
        pytest.param(30, False, 0.0, id="30 s behind, no tailer"),
        pytest.param(1, False, 1.3, id="1 s behind, no tailer"),
        pytest.param(4, True, 0.0, id="4 s behind"),
    ],
)
async def test_a_promoted_replica_whose_clock_is_behind_shows_nothing_as_fresher_than_it_is(
    settings: Settings, behind: int, fed: bool, wait: float
) -> None:
    """Postgres answers until the new master's own clock has stamped the board; then Redis does, within seconds."""
    with redis_pair(shift_seconds=-behind) as pair:
        async with serving(settings, pair, fed=fed) as (ladder, proxy, url, tailer):
            reader = Reader(ladder)
            if tailer:
                # Just before, or the lag that is announced would be long enough in spite of the clock.
                await cycle(tailer, settings)
            await until(lambda: asyncio.to_thread(pair.has_caught_up))
            await asyncio.to_thread(pair.promote_second)
            for number, user_id in enumerate(WRITTEN):
                await reader.write(user_id, 2000 + number)
            await asyncio.sleep(wait)
            proxy.lead_to(("127.0.0.1", pair.second_port))
            switched = time.monotonic()
            # One more begins now: it has seen no call fail, so nothing but the lag makes it doubt the board.
            async with opened(msgspec.structs.replace(settings, redis_url=url)) as another:
                await reader.read_for(READ_SECONDS, another)
            assert [] == reader.wrong[:3], len(reader.wrong)
            if tailer:
                assert {"postgres"} == set(reader.sources)
                health = await examine(ladder)
                assert ("degraded", None) == (health.status, health.mirror.lag_ms)
                assert "unknown" in (health.mirror.reason or "")
                await until(partial(cycle, tailer, settings))
            await until(lambda: served_by_redis(ladder))
            assert time.monotonic() - switched < HEALED_SECONDS + READ_SECONDS
            await reader.read_for(0.1)
            assert "applied" == (await ladder.rate(WRITTEN[0], 2500)).placed.outcome
            await assert_mirror_equals_ledger(msgspec.structs.replace(settings, redis_url=pair.second.url))

            assert [] == reader.wrong[:3], len(reader.wrong)
            assert reader.sources["redis"]


@pytest.mark.slow
@pytest.mark.parametrize("behind", [4, 30])
@pytest.mark.parametrize("fed", [True, False])
def test_two_workers_under_load_behind_haproxy(database_url: str, redis_url: str, behind: int, fed: bool) -> None:
    """Every answer over HTTP fits what was committed within the lag that it announces; then the board is exact."""
    assert redis_url
    with contextlib.ExitStack() as stack:
        loop = stack.enter_context(background())
        pair = stack.enter_context(redis_pair(shift_seconds=-behind))
        haproxy = stack.enter_context(own_haproxy(pair.first_port, pair.second_port))
        service = stack.enter_context(serving_workers(database_url, haproxy.url, workers=2))
        insert(service.settings, 2000)
        wait_until(service.is_mirrored)
        wait_until(pair.has_caught_up)
        through_second = msgspec.structs.replace(service.settings, redis_url=pair.second.url)
        holder = stack.enter_context(psycopg.connect(database_url, autocommit=True))
        with traffic(loop, f"http://127.0.0.1:{service.settings.port}", service.settings, writing=True) as clients:
            wait_until(lambda: clients.seen["redis"] > ENOUGH)
            if not fed:
                take_over(holder)
            pair.promote_second()
            time.sleep(1)
            haproxy.lead_to_second()
            haproxy.cut_first()
            clients.seen.clear()
            time.sleep(READ_SECONDS * 4)
            # Some were under way when it was cut.
            assert fed or clients.seen["redis"] < clients.seen["postgres"] / 10
            holder.close()
            wait_until(lambda: clients.seen["redis"] > ENOUGH)
        clients.check_kept()
        wait_until(lambda: ledger_board(through_second) == mirror_board(through_second)[:2])
        assert [] == service.defects()
    measured(f"{behind} s behind, {'fed' if fed else 'not fed'}: {dict(clients.seen)}")
