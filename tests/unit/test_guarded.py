"""The mirror as requests use it: how long they wait for it, and what they believe after it failed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from service.errors import OutcomeUnknown, Overloaded, Unavailable
from service.model import Board, NewRating, Placed, Rated, Token, User, UserId, Version
from service.ranking import guarded, writing
from service.ranking.coalesce import Coalescer
from service.ranking.guarded import GuardedMirror, Lookup
from service.ranking.ladder import Ladder
from service.store.ledger import Ledger
from service.store.mirror import RANK_IDS, Mirror

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WRITE = Rated(User(UserId("ada"), "ada", 1500, Version(1), NOON, NOON), None)
APPLIED, PENDING = Placed("applied", 1, 1), Placed("pending")
SLACK_SECONDS = 1.0


class Silence:
    """A mirror and a ledger that never answer."""

    async def put(self, _: Sequence[Rated], *, source: str) -> tuple[int | None, list[Placed]]:
        """Wait for ever."""
        await asyncio.Event().wait()
        raise AssertionError(source)

    async def users(self, _: Sequence[UserId], *, source: str) -> None:
        """Wait for ever."""
        await self.put([], source=source)

    async def rate(self, _: Sequence[NewRating]) -> None:
        """Wait for ever."""
        await self.put([], source="")

    async def histogram(self) -> None:
        """Wait for ever."""
        await self.put([], source="")

    async def past(self, _: object) -> None:
        """Wait for ever."""
        await self.put([], source="")


class Lagging(Silence):
    """A mirror that takes writes or fails, and lags as the test says, by a clock that it turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lag_ms = 250
        self.outcome = APPLIED
        self.up = True
        self.fault: Exception | None = None
        self.guarded = GuardedMirror(cast(Mirror, self), source=str, clock=lambda: self.now)

    async def put(self, written: Sequence[Rated], *, source: str) -> tuple[int | None, list[Placed]]:
        """Place every write the same."""
        assert source == ""
        if self.fault:
            raise self.fault
        if not self.up:
            raise Unavailable
        return self.lag_ms, [self.outcome] * len(written)

    async def placed(self) -> Placed:
        """What becomes of a write."""
        (placed,) = await self.guarded.put([WRITE])
        return placed


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Silence:
    """Stores that never answer, and callers who do not wait long."""
    monkeypatch.setattr(guarded, "CALL_SECONDS", 0.05)
    monkeypatch.setattr(writing, "WRITE_SECONDS", 0.05)
    return Silence()


async def test_why_writes_are_pending_is_told_once_a_minute() -> None:
    """Not with every write: a full Redis refuses them all, for hours."""
    lagging = Lagging()
    with capture_logs() as logs:
        for seconds in (0, 1, guarded.BLAME_SECONDS):
            lagging.now += seconds
            lagging.up = False
            assert PENDING == await lagging.placed()
            lagging.up = True
            assert (await lagging.placed()).outcome in ("applied", "pending")

    said = [entry["log_level"] for entry in logs if entry["event"] == "mirror.put_pending"]
    assert ["warning", "debug", "warning"] == said


async def test_a_defect_in_a_put_is_told_with_its_place() -> None:
    """The write is committed, so it is pending; nothing else would tell of it."""
    lagging = Lagging()
    lagging.fault = KeyError("of ours")
    with capture_logs() as logs:
        assert PENDING == await lagging.placed()

    (said,) = [entry for entry in logs if entry["event"] == "mirror.put_pending"]
    assert ("error", lagging.fault) == (said["log_level"], said["exc_info"])


async def test_writes_are_looked_for_at_the_instant_of_the_ranks() -> None:
    """In the same script call, however many ask: found in a later one, a write may have come after the rank was read."""
    calls: list[tuple[int, int]] = []

    class Counting:
        async def standings(self, ids: Sequence[UserId], *, source: str, at_once: int) -> tuple[Board, dict[str, Any]]:
            assert source == ""
            calls.append((len(ids), at_once))
            return Board(0), {}

    mirror = GuardedMirror(cast(Mirror, Counting()), source=str)
    lookups = [Lookup(UserId(f"u{number}")) for number in range(RANK_IDS)]
    since = (Token(UserId("ada"), Version(2)),)
    await mirror.ranks(lookups)
    await mirror.ranks([*lookups[1:], Lookup(UserId("bob"), since)])

    assert [(RANK_IDS, RANK_IDS), (RANK_IDS + 1, RANK_IDS + 1)] == calls


async def test_nobody_waits_longer_than_the_deadline(silence: Silence) -> None:
    """Whatever the single steps of a call are allowed: a write is pending then, a read goes elsewhere."""
    mirror = GuardedMirror(cast(Mirror, silence), source=str)
    begun = time.monotonic()

    assert [PENDING] == await mirror.put([WRITE])
    with pytest.raises(Unavailable):
        await mirror.users([Lookup(UserId("ada"))])
    assert time.monotonic() - begun < SLACK_SECONDS


async def test_a_write_that_takes_too_long_is_unknown(silence: Silence) -> None:
    """It may still be committed, so it must not be called refused."""
    waiting = Ladder(cast(Ledger, silence), cast(Mirror, silence), source=str)
    begun = time.monotonic()

    with pytest.raises(OutcomeUnknown):
        await waiting.rate(UserId("ada"), 1500)
    assert time.monotonic() - begun < SLACK_SECONDS


async def test_places_on_a_doubtful_board_are_not_told() -> None:
    """After a failure, until the board has everything from before it."""
    mirror = Lagging()
    assert APPLIED == await mirror.placed()
    mirror.up = False
    assert PENDING == await mirror.placed()
    mirror.up = True
    mirror.now += 0.25
    assert PENDING == await mirror.placed()
    mirror.now += 0.0625

    assert APPLIED == await mirror.placed()


async def test_writes_that_arrive_give_no_new_reason_for_doubt() -> None:
    """A steady stream of them would keep it alive for ever; one that did not arrive is a reason."""
    mirror = Lagging()
    mirror.up = False
    await mirror.placed()
    mirror.up = True
    outcomes = []
    for _ in range(5):
        mirror.now += 0.0625
        outcomes.append(await mirror.placed())
    assert [PENDING] * 4 + [APPLIED] == outcomes
    mirror.outcome = PENDING
    await mirror.placed()
    mirror.outcome = APPLIED
    mirror.now += 0.0625

    assert PENDING == await mirror.placed()


async def test_patience_ends_while_every_batch_is_under_way() -> None:
    """Who waits for a turn is refused when the time is up, not when the batch before has ended."""
    release = asyncio.Event()

    async def run(items: Sequence[int]) -> Sequence[int]:
        await release.wait()
        return items

    gathered = Coalescer(run, shared=True, max_batch=1, max_in_flight=1, patience=0.05)
    first = asyncio.create_task(gathered(1))
    await asyncio.sleep(0)
    begun = time.monotonic()
    outcomes = await asyncio.gather(gathered(2), gathered(3), gathered(2), return_exceptions=True)

    assert [Overloaded] * 3 == [type(outcome) for outcome in outcomes]
    assert time.monotonic() - begun < SLACK_SECONDS
    release.set()
    assert 1 == await first
    assert 2 == await gathered(2)
