"""Which store answers: the table in `service.ranking.choice`, line by line."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from service.errors import Behind, NotReady, Unavailable
from service.model import Board, Token, User, UserId, Version
from service.ranking.answers import ANY, Answer, Demand
from service.ranking.breaker import FAILURES_IN_A_ROW, Breaker
from service.ranking.choice import FRESH_LAG_MS, PREFERRED_LAG_MS, USABLE_LAG_MS, Choice
from service.ranking.pending import PendingWrites

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OWN = Token(UserId("own"), Version(1))
OTHER = Token(UserId("other"), Version(2))
TOKEN, NO_CACHE = Demand(OTHER), Demand(no_cache=True)


class Found(msgspec.Struct):
    """What a mirror answers."""

    board: Board


class Stores:
    """A mirror and a ledger as the test wants them."""

    def __init__(self) -> None:
        self.mirror: int | Exception = 0
        self.lacking: set[Token] = set()
        self.ledger_up = True
        self.counted = 0
        self.pending = PendingWrites()
        self.choice = Choice(self.pending, Breaker("Postgres"))

    async def ask(self, since: tuple[Token, ...]) -> Found:
        """Read the mirror."""
        if isinstance(self.mirror, Exception):
            raise self.mirror
        if self.lacking & set(since):
            raise Behind
        return Found(Board(1, self.mirror))

    async def count(self) -> Answer[str]:
        """Read the ledger."""
        self.counted += 1
        if not self.ledger_up:
            raise Unavailable
        return Answer("counted", "postgres")

    async def read(self, demand: Demand) -> str:
        """Who answers, and how."""
        own = self.pending.tokens()
        try:
            answer = await self.choice.read(self.ask, self.count, demand=demand, own=own)
        except Unavailable:
            return "refused"
        if isinstance(answer, Answer):
            return "ledger"
        return "stale mirror" if answer.stale else "mirror"


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
        (NotReady(), ANY, "ledger", "refused"),
        (Unavailable(), TOKEN, "ledger", "refused"),
    ],
)
async def test_the_lag_decides(
    stores: Stores, mirror: int | Exception, demand: Demand, ledger_up: str, ledger_down: str
) -> None:
    stores.mirror = mirror
    assert ledger_up == await stores.read(demand)
    stores.ledger_up = False

    assert ledger_down == await stores.read(demand)


@pytest.mark.parametrize("demand", [TOKEN, Demand(OTHER, no_cache=True)])
async def test_an_answer_from_before_the_tokens_write_is_never_given(stores: Stores, demand: Demand) -> None:
    """Postgres answers, or nobody; whatever else is missing."""
    stores.lacking = {OTHER}
    assert "ledger" == await stores.read(demand)
    write(stores, OWN)
    assert "ledger" == await stores.read(demand)
    stores.ledger_up = False

    assert "refused" == await stores.read(demand)


def write(stores: Stores, token: Token) -> None:
    """Commit a write here that the mirror did not take."""
    stores.pending.add(User(token.id, "somebody", 1500, token.version, NOON, NOON))
    stores.lacking.add(token)


async def test_a_write_of_this_process_is_seen_by_it(stores: Stores) -> None:
    """From Postgres until the mirror has it; a mirror without it only while Postgres cannot be asked."""
    write(stores, OWN)
    assert "ledger" == await stores.read(ANY)
    stores.ledger_up = False
    assert "stale mirror" == await stores.read(ANY)
    assert "stale mirror" == await stores.read(TOKEN)
    assert (OWN,) == stores.pending.tokens()
    stores.lacking.clear()

    assert "mirror" == await stores.read(ANY)
    assert () == stores.pending.tokens()


async def test_a_ledger_that_keeps_failing_is_not_waited_for(stores: Stores) -> None:
    """Where the mirror can serve instead; where it cannot, it is tried every time."""
    stores.mirror, stores.ledger_up = PREFERRED_LAG_MS + 1, False
    for _ in range(3 * FAILURES_IN_A_ROW):
        assert "stale mirror" == await stores.read(ANY)
    assert FAILURES_IN_A_ROW == stores.counted
    stores.mirror = NotReady()
    assert "refused" == await stores.read(ANY)

    assert FAILURES_IN_A_ROW + 1 == stores.counted
