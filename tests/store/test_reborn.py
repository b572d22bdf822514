"""A user who is created while the one of the same id is being deleted has the newer version."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg

from service.ranking.tail import Tailer
from service.settings import Settings
from service.store.mirror import Mirror
from tests.api.serving import wait_until
from tests.ranking.equality import assert_mirror_equals_ledger


async def test_whoever_is_created_during_a_deletion_is_newer(settings: Settings, mirror: Mirror) -> None:
    """The insert draws its version, only then finds the other one in its way, and waits for them to be gone."""
    with (
        psycopg.connect(settings.database_url, autocommit=True) as deleter,
        psycopg.connect(settings.database_url, autocommit=True) as creator,
        psycopg.connect(settings.database_url, autocommit=True) as gate,
        ThreadPoolExecutor(1) as thread,
    ):
        gate.execute("INSERT INTO users (id, username, rating) VALUES ('ada', 'ada-1', 1500)")
        # Holds the creator between its version and the index.
        gate.execute(
            "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$"
        )
        gate.execute("CREATE TRIGGER zz_pause BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION pause()")
        gate.execute("SELECT pg_advisory_lock(1)")
        created = thread.submit(
            creator.execute, "INSERT INTO users (id, username, rating) VALUES ('ada', 'ada-2', 1600)"
        )
        waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND NOT granted)"
        wait_until(lambda: gate.execute(waiting).fetchone() == (True,))
        deleter.execute("DELETE FROM users WHERE id = 'ada'")
        gate.execute("SELECT pg_advisory_unlock(1)")
        created.result(10)
    await Tailer(settings.database_url, mirror).catch_up()

    with psycopg.connect(settings.database_url) as session:
        row = session.execute("SELECT u.version, t.version FROM users u JOIN user_tombstones t USING (id)").fetchone()
    assert row
    assert row[0] > row[1]
    await assert_mirror_equals_ledger(settings)
