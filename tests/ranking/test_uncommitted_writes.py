"""The mirror holds what is committed, and nothing else."""

from __future__ import annotations

import psycopg
import pytest

from service.errors import StoreBug
from service.model import NewUser, UserId
from service.ranking.ladder import Ladder
from service.settings import Settings
from tests.ranking.equality import assert_mirror_equals_ledger, ready

ADA, BOB = UserId("ada"), UserId("bob")


async def test_a_write_that_fails_at_its_commit_is_nowhere(ladder: Ladder, settings: Settings) -> None:
    """Neither put before, nor put all the same."""
    await ready(ladder)
    await ladder.create(NewUser(ADA, "ada", 1500))
    with psycopg.connect(settings.database_url, autocommit=True) as ledger:
        ledger.execute(
            "CREATE CONSTRAINT TRIGGER too_late AFTER INSERT OR UPDATE ON users DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION users_refuse('not at the commit')"
        )
    with pytest.raises(StoreBug):
        await ladder.rate(ADA, 1600)
    with pytest.raises(StoreBug):
        await ladder.create(NewUser(BOB, "bob", 1400))

    await assert_mirror_equals_ledger(settings)
    assert 1500 == (await ladder.user(ADA)).value.user.rating
