"""A user whom the two stores hold in different versions is shown in one."""

from __future__ import annotations

import psycopg

from service.model import UserId
from service.ranking.ladder import Ladder
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store.ledger import Ledger
from service.store.mirror import Mirror
from service.store.postgres import Postgres
from tests.ranking.reconciling import insert


async def test_rating_and_rank_are_of_one_version(settings: Settings, mirror: Mirror) -> None:
    """A write that the mirror has not got yet: Postgres answers for both, and not the mirror for the rank."""
    tailer = Tailer(settings.database_url, mirror)
    postgres = Postgres(settings.database_url)
    await postgres.open()
    try:
        with psycopg.connect(settings.database_url, autocommit=True) as session:
            insert(session, 20)
            await tailer.catch_up()
            session.execute("UPDATE users SET rating = 4000 WHERE id = 'user1'")
        ladder = Ladder(Ledger(postgres), mirror, source=lambda: tailer.source)
        answer = await ladder.user(UserId("user1"))
    finally:
        await postgres.close()

    assert "postgres" == answer.source
    assert (4000, 4000, 1) == (answer.value.user.rating, answer.value.standing.rating, answer.value.standing.rank)
    assert answer.value.user.version == answer.value.standing.version
