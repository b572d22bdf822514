"""Which store answers: the table in `service.ranking.choice`, line by line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NoReturn

import msgspec
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from service.errors import Behind, NotReady, Overloaded, StoreBug, Unavailable
from service.model import Board, Placed, Rated, Token, User, UserId, Version
from service.ranking.answers import ANY, Answer, Demand
from service.ranking.breaker import FAILURES_IN_A_ROW
from service.ranking.choice import FRESH_LAG_MS, PREFERRED_LAG_MS, USABLE_LAG_MS, Choice
from service.ranking.guarded import BLAME_SECONDS, GuardedMirror
from service.store.mirror import Mirror

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OTHER = Token(UserId("other"), Version(2))
TOKEN, NO_CACHE = Demand(OTHER), Demand(no_cache=True)


class Found(msgspec.Struct):
    """What a mirror answers."""

    board: Board


class Stores:
    """A mirror and a ledger as the test wants them, and the clock that it turns."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.mirror: int | Exception | None = 0
        self.ledger_up = True
        self.counted = 0
        self.guarded = GuardedMirror(Mirror(self), source=str, clock=lambda: self.now)  # type: ignore[arg-type]  # no client
        self.choice = Choice(self.guarded, clock=lambda: self.now)

    @property
    def connection_pool(self) -> NoReturn:
        """Refuse, as a client of Redis that is away."""
        raise RedisConnectionError

    async def ask(self) -> Found:
        """Read the mirror."""
        if isinstance(self.mirror, Exception):
            raise self.mirror
        return Found(Board(1, self.mirror))

    async def count(self) -> Answer[str]:
        """Read the ledger."""
        self.counted += 1
        if not self.ledger_up:
            raise Unavailable
        return Answer("counted", "postgres")

    async def read(self, demand: Demand = ANY) -> str:
        """Who answers, and how."""
        try:
            answer = await self.choice.read(self.ask, self.count, demand=demand)
        except Unavailable:
            return "refused"
        if isinstance(answer, Answer):
            return "ledger"
        return "stale mirror" if answer.stale else "mirror"

    async def fail(self) -> None:
        """Make a put that gets no answer."""
        user = User(UserId("own"), "somebody", 1500, Version(1), NOON, NOON)
        assert [Placed("pending")] == await self.guarded.put([Rated(user, None)])


@pytest.fixture
def stores() -> Stores:
    """Both up, the mirror fresh."""
    return Stores()


@pytest.mark.parametrize(
    ("mirror", "demand", "ledger_up", "ledger_down"),
    [
        (0, ANY, "mirror", "mirror"),
        (0, NO_CACHE, "mirror", "mirror"),
        (0, TOKEN, "mirror", "mirror"),
        (FRESH_LAG_MS, TOKEN, "mirror", "mirror"),
        (FRESH_LAG_MS + 1, ANY, "stale mirror", "stale mirror"),
        (FRESH_LAG_MS + 1, NO_CACHE, "ledger", "stale mirror"),
        (FRESH_LAG_MS + 1, TOKEN, "ledger", "stale mirror"),
        (PREFERRED_LAG_MS, ANY, "stale mirror", "stale mirror"),
        (PREFERRED_LAG_MS + 1, ANY, "ledger", "stale mirror"),
        (USABLE_LAG_MS, ANY, "ledger", "stale mirror"),
        (USABLE_LAG_MS + 1, ANY, "ledger", "refused"),
        (None, ANY, "ledger", "stale mirror"),
        (None, TOKEN, "ledger", "stale mirror"),
        (NotReady(), ANY, "ledger", "refused"),
        (Unavailable(), TOKEN, "ledger", "refused"),
        (Behind(), TOKEN, "ledger", "refused"),
        (StoreBug(), ANY, "ledger", "refused"),
        (TypeError("of ours"), TOKEN, "ledger", "refused"),
    ],
)
async def test_the_lag_decides(
    stores: Stores, mirror: int | Exception | None, demand: Demand, ledger_up: str, ledger_down: str
) -> None:
    stores.mirror = mirror
    assert ledger_up == await stores.read(demand)
    stores.ledger_up = False

    assert ledger_down == await stores.read(demand)


async def test_after_a_failed_call_the_mirror_is_read_when_it_has_caught_up(stores: Stores) -> None:
    """When everything from before the failure is on it: as it lags 300 ms, not before that much time is over."""
    stores.mirror = 300
    await stores.fail()
    assert "ledger" == await stores.read()
    stores.now += 0.3
    assert "ledger" == await stores.read()
    stores.now += 0.001

    assert "mirror" == await stores.read()


async def test_a_doubtful_mirror_is_better_than_none(stores: Stores) -> None:
    """Postgres is away too: what there is is shown, and marked."""
    await stores.fail()
    stores.ledger_up = False

    assert "stale mirror" == await stores.read()
    assert "stale mirror" == await stores.read(TOKEN)


async def test_a_failure_while_the_mirror_is_asked_counts(stores: Stores) -> None:
    """The answer may be of the time before it."""

    async def ask() -> Found:
        stores.now += 0.1
        await stores.fail()
        stores.now += 0.1
        return Found(Board(1, 50))

    assert isinstance(await stores.choice.read(ask, stores.count, demand=ANY), Answer)


async def test_a_ledger_that_keeps_failing_is_not_waited_for(stores: Stores) -> None:
    """Where the mirror can serve instead; where it cannot, it is tried every time."""
    stores.mirror, stores.ledger_up = PREFERRED_LAG_MS + 1, False
    for _ in range(3 * FAILURES_IN_A_ROW):
        assert "stale mirror" == await stores.read()
    assert FAILURES_IN_A_ROW == stores.counted
    stores.mirror = NotReady()
    assert "refused" == await stores.read()

    assert FAILURES_IN_A_ROW + 1 == stores.counted


async def test_a_defect_in_reading_the_mirror_is_logged_once_a_minute(stores: Stores) -> None:
    """With its place, and `/health` tells of it for a while; each read is answered by Postgres."""
    stores.mirror = KeyError("of ours")
    with capture_logs() as logs:
        for _ in range(3):
            assert "ledger" == await stores.read()
        assert stores.guarded.trouble
        stores.now += BLAME_SECONDS
        assert "" == stores.guarded.trouble
        assert "ledger" == await stores.read()

    said = [entry for entry in logs if entry["event"] == "mirror.read_failed"]
    assert ["error", "error"] == [entry["log_level"] for entry in said]
    assert stores.mirror is said[0]["exc_info"]


async def test_a_ledger_that_is_busy_with_us_is_not_away(stores: Stores) -> None:
    """Its breaker stays closed: the next read asks it again."""
    stores.mirror = PREFERRED_LAG_MS + 1

    async def count() -> Answer[str]:
        raise Overloaded

    for _ in range(2 * FAILURES_IN_A_ROW):
        answer = await stores.choice.read(stores.ask, count, demand=ANY)
        assert not isinstance(answer, Answer)

    assert "ledger" == await stores.read()
