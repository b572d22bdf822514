"""What happens in between two steps of a repair: whoever returns there stays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.ranking.tail import Tailer
from service.settings import Settings
from service.store.feed import Feed
from service.store.inspection import Inspection
from service.store.mirror import Mirror
from tests.ranking.equality import assert_mirror_equals_ledger
from tests.ranking.reconciling import Session, bypassing, insert, reconcile


@pytest.fixture
async def come_back(ledger: Session, settings: Settings, mirror: Mirror) -> Callable[[], Awaitable[None]]:
    """A user that only the mirror has; to be awaited when they shall return to Postgres, and from there to it."""
    tailer = Tailer(settings.database_url, mirror)
    insert(ledger, 20)
    await tailer.catch_up()
    bypassing(ledger, "DELETE FROM users WHERE id = 'user1'")
    pending = ["INSERT INTO users (id, username, rating) VALUES ('user1', 'back', 1600)"]

    async def come() -> None:
        if pending:
            ledger.execute(pending.pop())
            await tailer.catch_up()

    return come


async def test_whoever_returns_between_the_looks_stays(come_back, settings, monkeypatch) -> None:
    """Postgres is read after Redis: in the other order it has nobody yet, and Redis the one who just came."""
    seen = []

    def followed(verb: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def read(*arguments: Any, **named: Any) -> Any:
            answer = await verb(*arguments, **named)
            if "user1" in arguments[1]:
                seen.append(verb)
                await come_back()
            return answer

        return read

    monkeypatch.setattr(Inspection, "peek", followed(Inspection.peek))
    monkeypatch.setattr(Feed, "users", followed(Feed.users))
    await reconcile(settings)

    assert 2 == len(seen)
    await assert_mirror_equals_ledger(settings)


async def test_whoever_returns_before_the_removal_stays(come_back, settings) -> None:
    """Removed is the version that was seen, and no other."""

    class Late(Inspection):
        async def fix(self, *arguments: Any, **named: Any) -> list[bool]:
            await come_back()
            return await super().fix(*arguments, **named)

    report = await reconcile(settings, inspection=Late)

    assert (1, 0, 1) == (report.orphan, report.repaired, report.raced)
    await assert_mirror_equals_ledger(settings)
