"""The continuous check on real stores: a damaged row is found, and a healthy service under load is not accused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis
from structlog.testing import capture_logs

from service.app import opened
from service.model import UserId
from service.ranking import sampling
from service.ranking.ladder import Ladder
from service.ranking.sampling import Sampler
from service.settings import Settings
from tests.faults.readers import ADA, BOB, EVE, populate, served_by_redis, until
from tests.ranking.equality import assert_mirror_equals_ledger
from tests.ranking.reconciling import BOARD, USERS


@pytest.fixture
def samplers(monkeypatch: pytest.MonkeyPatch) -> list[Sampler]:
    """The samplers of the services under test, whose later looks come after 0.3, 0.6 and 0.9 seconds."""
    made: list[Sampler] = []
    plain = Sampler.__init__

    def init(self: Sampler, *arguments, **named) -> None:
        plain(self, *arguments, **named)
        self.mismatches = dict.fromkeys(sampling.HORIZONS, 0)
        made.append(self)

    monkeypatch.setattr(sampling, "HORIZONS", (0.3, 0.6, 0.9))
    monkeypatch.setattr(Sampler, "__init__", init)
    return made


@pytest.fixture
async def sampled(settings: Settings, samplers: list[Sampler]) -> AsyncIterator[Ladder]:
    """A service that checks every read, with three users on its board."""
    settings = Settings(database_url=settings.database_url, redis_url=settings.redis_url, check_sample=1.0)
    async with opened(settings) as running:
        await populate(running)
        await until(lambda: served_by_redis(running))
        yield running
    assert not samplers[0]._open


@pytest.mark.parametrize("damage", ["rating", "version"])
async def test_a_damaged_row_is_found(sampled: Ladder, samplers: list[Sampler], redis_url: str, damage: str) -> None:
    """A score or a version that somebody typed: found by the reads that it was served to, and told with its versions."""
    with redis.Redis.from_url(redis_url, protocol=2) as board:
        held = board.hget(USERS, "ada") or b""
        if damage == "rating":
            board.zadd(BOARD, {held.partition(b"|")[2] + b"~ada": 4000})
        else:
            board.hset(USERS, "ada", b"1%s" % held)
    with capture_logs() as logs:
        await sampled.user(ADA)
        if damage == "version":
            # Postgres answered that, because the two versions differ: a reader without an object notices at once.
            samplers[0].saw(ADA)
        await until(lambda: _has_told(logs))
        await sampled.user(BOB)
        await until(lambda: _is_done(samplers[0]))

    assert {0.3: 1, 0.6: 1, 0.9: 1} == {horizon: min(n, 1) for horizon, n in samplers[0].mismatches.items()}
    assert {"ada"} == {str(entry["user"]) for entry in logs if entry["event"] == "check.mismatch"}
    assert samplers[0].agreed > 0


async def _has_told(logs) -> bool:
    return any(entry["event"] == "check.mismatch" for entry in logs)


async def _is_done(sampler: Sampler) -> bool:
    return not sampler._open


async def test_a_healthy_service_under_load_is_not_accused(
    sampled: Ladder, samplers: list[Sampler], settings: Settings
) -> None:
    """Writes and reads of the same few users, all of them checked: nothing is counted."""

    async def write(user_id: UserId) -> None:
        for rating in range(1000, 1100):
            await sampled.rate(user_id, rating)

    async def read(writing: asyncio.Future[list[None]]) -> None:
        while not writing.done():
            for user_id in (ADA, BOB, EVE):
                await sampled.user(user_id)

    writing = asyncio.gather(*(write(user_id) for user_id in (ADA, BOB, EVE)))
    await read(writing)
    await writing
    await until(lambda: _is_done(samplers[0]))

    assert samplers[0].agreed > 10
    assert {0} == set(samplers[0].mismatches.values())
    await assert_mirror_equals_ledger(settings)
