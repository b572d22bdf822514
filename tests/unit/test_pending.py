"""Which of its own writes a process still looks for in the mirror."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from service.model import Token, User, UserId, Version
from service.ranking.choice import PREFERRED_LAG_MS
from service.ranking.pending import KEPT_SECONDS, KEPT_WRITES, PendingWrites

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Kept(PendingWrites):
    """Pending writes by a clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        super().__init__(clock=lambda: self.now)

    def write(self, user_id: str, version: int) -> Token:
        """Commit a write that the mirror did not take."""
        self.add(User(UserId(user_id), user_id, 1500, Version(version), NOON, NOON))
        return Token(UserId(user_id), Version(version))


@pytest.fixture
def pending() -> Kept:
    """Nothing pending."""
    return Kept()


def test_the_newest_write_of_each_user_is_kept(pending: Kept) -> None:
    pending.write("ada", 1)
    bob, ada = pending.write("bob", 2), pending.write("ada", 3)

    assert (bob, ada) == pending.tokens()
    assert (ada,) == pending.of(ada.id)
    assert () == pending.of(UserId("eve"))
    assert (100.0, 0.0) == (pending.since(ada.id), pending.since(UserId("eve")))


def test_what_the_mirror_showed_is_forgotten(pending: Kept) -> None:
    """But not a write that came while it was asked."""
    asked = (pending.write("ada", 1), pending.write("bob", 2))
    newer = pending.write("ada", 3)
    pending.shown(asked)

    assert (newer,) == pending.tokens()


def test_an_old_write_is_forgotten(pending: Kept) -> None:
    """Only when a mirror that is read at all must have it, or never will: it may be of a lost history."""
    ada = pending.write("ada", 1)
    pending.now += KEPT_SECONDS
    bob = pending.write("bob", 2)
    assert (ada, bob) == pending.tokens()
    pending.now += 0.01

    assert (bob,) == pending.tokens()
    assert KEPT_SECONDS * 1000 > PREFERRED_LAG_MS


def test_there_are_never_more_than_a_call_can_look_for(pending: Kept) -> None:
    """The newest are kept."""
    for version in range(KEPT_WRITES + 10):
        pending.write(f"user{version}", version + 1)

    assert [f"user{version}" for version in range(10, KEPT_WRITES + 10)] == [token.id for token in pending.tokens()]
