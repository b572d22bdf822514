"""Sessions keep what they rely on, or what DATABASE_URL leads to is refused in one sentence."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from structlog.testing import capture_logs

from service import __main__
from service.app import opened
from service.errors import Misconfigured, OutcomeUnknown, Unavailable
from service.model import NewUser, UserId
from service.ranking.ladder import Ladder
from service.settings import Settings
from service.store.feed import Feed
from service.store.migrate import LOCK, check, migrate
from service.store.postgres import Postgres, borrowed
from service.store.session import Session
from tests.api.serving import ROOT
from tests.conftest import Stores
from tests.embedded.processes import wait_until
from tests.faults.readers import until
from tests.servers.own_pgbouncer import own_pgbouncer
from tests.servers.own_postgres import OwnPostgres, own_postgres
from tests.store.every_operation import assert_equal_to_sql, carry_out

IGNORED = {"ignore_startup_parameters": "options"}
COMMANDS = (
    ("migrate.py",),
    ("reconcile.py",),
    ("reconcile.py", "--incremental"),
    ("export_board.py",),
    ("import_users.py", "list.csv"),
    ("server", "--demo-users", "5", "--port", "65533"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[OwnPostgres]:
    """A server with a schema, over a socket."""
    with own_postgres() as made:
        made.start()
        migrate(made.url)
        yield made


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("settings", [{}, IGNORED, {**IGNORED, "server_round_robin": "1", "min_pool_size": "5"}])
def test_a_pooler_that_shares_sessions_is_refused(server: OwnPostgres, mode: str, settings: dict[str, str]) -> None:
    """Whether it complains of the startup options, ignores them, or gives out its connections in turn."""
    with own_pgbouncer(server, mode, **settings) as url, pytest.raises(Misconfigured, match="session mode"):
        Session(url).connect()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_refuses_such_a_pooler(
    server: OwnPostgres, redis_url: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """With exit code 2 and one sentence."""
    users = tmp_path / "list.csv"
    users.write_text("username,rating\nsomebody,1500\n")
    command = tuple(str(users) if word == users.name else word for word in command)
    with own_pgbouncer(server, "transaction", **IGNORED) as url:
        done = run(url, redis_url, *command)

    assert 2 == done.returncode, done.stderr
    assert "DATABASE_URL must lead to Postgres itself" in done.stderr.splitlines()[-1]


def run(url: str, redis_url: str, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program over these stores."""
    return subprocess.run(
        [ROOT / "scripts" / program, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "DATABASE_URL": url, "REDIS_URL": redis_url},
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize("is_migrating", [True, False])
def test_the_service_refuses_such_a_pooler(
    server: OwnPostgres, redis_url: str, capsys: pytest.CaptureFixture[str], *, is_migrating: bool
) -> None:
    """Also when it does not migrate."""
    with own_pgbouncer(server, "transaction", **IGNORED) as url:
        settings = Settings(database_url=url, redis_url=redis_url, migrate_on_start=is_migrating)
        assert 2 == __main__._serve(settings)

    assert "DATABASE_URL must lead to Postgres itself" in capsys.readouterr().err


async def test_a_pooler_in_session_mode_serves(server: OwnPostgres, redis_url: str) -> None:
    """Every operation goes through it, and no lock stays in its sessions."""
    with own_pgbouncer(server, "session", **IGNORED, default_pool_size="40") as url:
        told = await carry_out(Settings(database_url=url, redis_url=redis_url, workers=1))
        await assert_equal_to_sql(Settings(database_url=server.url, redis_url=redis_url), told)


async def test_a_pooler_that_begins_to_share_sessions_is_noticed(server: OwnPostgres, redis_url: str) -> None:
    """The log says so and no write is made until it is set right, although the service was started before."""
    ada = UserId("ada")
    with contextlib.ExitStack() as stack, capture_logs() as logs:
        url = stack.enter_context(own_pgbouncer(server, "session", **IGNORED, default_pool_size="40"))
        async with opened(Settings(database_url=url, redis_url=redis_url, workers=1)) as ladder:
            await ladder.create(NewUser(ada, "player-ada", 1500))
            stack.close()
            with own_pgbouncer(server, "transaction", **IGNORED):
                await until(lambda: _said(logs))
                # One by one they would all meet the same process.
                for _ in range(5):
                    with pytest.raises((Unavailable, OutcomeUnknown)):
                        await ladder.rate(ada, 1600)
            with own_pgbouncer(server, "session", **IGNORED, default_pool_size="40"):
                await until(lambda: _rates(ladder, ada))
    server.ask("DELETE FROM users")


async def _said(logs: Sequence[Mapping[str, object]]) -> bool:
    return any("DATABASE_URL must lead to Postgres itself" in str(entry.get("reason")) for entry in logs)


async def _rates(ladder: Ladder, user_id: UserId) -> bool:
    return (await ladder.rate(user_id, 1700)).user.rating == 1700


async def test_a_session_that_turns_out_to_be_shared_is_given_up(server: OwnPostgres) -> None:
    """A feed and a pool whose statements reach another process than before say so."""
    async with Feed(server.url) as feed:
        feed.session.process += 1
        with pytest.raises(Misconfigured):
            await feed.adopt()
        assert feed.session.closed
    postgres = Postgres(server.url)
    await postgres.open()
    try:
        for pool in (postgres.writes, postgres.reads):
            async with borrowed(pool) as connection:
                connection.process += 1
            checked = pool._check
            assert checked
            with pytest.raises(Misconfigured):
                await checked(connection)
            assert connection.closed
    finally:
        await postgres.close()


def test_the_environment_of_libpq_changes_nothing(server: OwnPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variables come after the startup options, and would be stronger."""
    for name, value in (("PGDATESTYLE", "German"), ("PGTZ", "Asia/Tokyo"), ("PGCLIENTENCODING", "LATIN1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PGOPTIONS", "-c bytea_output=escape")
    with contextlib.closing(Session(server.url).connect()) as session:
        shown = [
            session.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchall()[0][0]
            for name in ("datestyle", "timezone", "client_encoding", "bytea_output")
        ]

    assert ["ISO, MDY", "UTC", "UTF8", "hex"] == shown


def test_the_url_may_name_the_schema(database_url: str) -> None:
    """As its own option; the tables are made there and found there, and never made a second time elsewhere."""
    own = f"{database_url}&options=-csearch_path%3Down%20-c%20geqo%3Doff"
    with pytest.raises(Misconfigured, match="without the schema own"):
        migrate(own)
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA own")
    migrate(own)
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute("CREATE SCHEMA public")

        assert [("own",)] == session.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'users'").fetchall()
    assert [] == migrate(own)
    for refusing in (migrate, check):
        with pytest.raises(Misconfigured, match="search_path%3Down"):
            refusing(database_url)


def test_triggers_that_would_not_run_are_refused(database_url: str, stores: Stores) -> None:
    """A database in which writes are not stamped is one whose mirror is wrong."""
    name = sql.Identifier(str(conninfo_to_dict(database_url)["dbname"]))
    stores.admin(sql.SQL("ALTER DATABASE {} SET session_replication_role = replica").format(name))

    with pytest.raises(Misconfigured, match="session_replication_role = replica"):
        migrate(database_url)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP"])
async def test_a_database_of_another_encoding_serves(stores: Stores, redis_url: str, encoding: str) -> None:
    """Ids and names are ASCII, which all of them share."""
    name = stores.create()
    stores.drop(name)
    with psycopg.connect(stores.database_url) as session:
        # The server's own provider of locales may know UTF8 alone.
        provider = sql.SQL("LOCALE_PROVIDER libc" if session.info.server_version >= 150000 else "")
    made = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} {} LC_COLLATE 'C' LC_CTYPE 'C'")
    stores.admin(made.format(sql.Identifier(name), encoding, provider))
    settings = Settings(database_url=stores.url(name), redis_url=redis_url, workers=1)
    try:
        told = await carry_out(settings)
        clean = msgspec.structs.replace(settings, database_url=f"{settings.database_url}&client_encoding=UTF8")
        await assert_equal_to_sql(clean, told)
        async with Feed(settings.database_url) as feed:
            # What was typed into Redis by hand.
            assert set() == await feed.present([UserId(text) for text in ("\ufffd", "日本", "a\0b")])
    finally:
        stores.drop(name)


def test_a_migration_that_waits_says_for_what(database_url: str) -> None:
    """At once, with the process that has the lock; and it goes on as soon as that one has given it back."""
    said: list[str] = []
    with psycopg.connect(database_url, autocommit=True, application_name="the other one") as other:
        other.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        work = threading.Thread(target=migrate, args=(database_url,), kwargs={"waiting": said.append})
        work.start()
        try:
            wait_until(lambda: said)
        finally:
            other.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
        work.join()

        (reason,) = said
        assert f"process {other.info.backend_pid} of Postgres" in reason
        assert "the other one" in reason


def test_a_migration_that_waits_can_be_interrupted(database_url: str) -> None:
    """With the exit code of every command, and without a traceback."""
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        environment = {**os.environ, "DATABASE_URL": database_url}
        with subprocess.Popen(
            [ROOT / "scripts" / "migrate.py"], stderr=subprocess.PIPE, text=True, env=environment
        ) as command:
            assert command.stderr
            said = command.stderr.readline()
            command.terminate()

            assert said.startswith("Waiting: the schema is being brought up to date")
            # A signal that comes while the line is being written has it written again.
            assert "Interrupted." == command.stderr.read().splitlines()[-1]
        assert 130 == command.returncode


def test_a_migration_gives_its_lock_back(server: OwnPostgres) -> None:
    """By itself, not with its session: behind a pooler that may not end."""
    with own_pgbouncer(server, "session", **IGNORED, server_reset_query="") as url:
        migrate(url)

        assert server.ask(
            f"SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = {LOCK & 0xFFFFFFFF}"
        )


async def test_a_feed_gives_its_lock_back_when_its_work_fails(server: OwnPostgres) -> None:
    """Likewise, whatever ended the work."""
    with own_pgbouncer(server, "session", **IGNORED, server_reset_query="") as url:
        with contextlib.suppress(ZeroDivisionError):
            async with Feed(url) as feed:
                assert await feed.try_lock()
                raise ZeroDivisionError

        assert server.ask("SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'")


def test_a_migration_waits_for_no_table(database_url: str, tmp_path: Path) -> None:
    """It gives way to a session that uses the table, says so, and tries again: nothing queues behind it meanwhile."""
    (tmp_path / "9999_test.sql").write_text("SET LOCAL lock_timeout = '50ms'; ALTER TABLE users ADD COLUMN test int;")
    said: list[str] = []
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM users")
        work = threading.Thread(
            target=migrate, args=(database_url,), kwargs={"waiting": said.append, "directory": tmp_path}
        )
        work.start()
        wait_until(lambda: said)
        other.rollback()
        work.join()

        assert ["migration 9999_test.sql waits for a table that another session has locked"] == said
        assert other.execute("SELECT test FROM users").fetchall() == []
