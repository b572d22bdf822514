"""
Forward-only schema migrations: `migrations/NNNN_name.sql`, each applied once, in order.

A file runs in one transaction together with its line in `schema_migrations`, so a crash leaves either
all of it or nothing. An advisory lock makes starting several processes at once safe: one applies, the
others wait, say so, and find nothing to do.
"""

from __future__ import annotations

import hashlib
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import psycopg
import structlog

from service.errors import Misconfigured, SchemaMismatch
from service.store.postgres import QUERIES, translated
from service.store.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DIRECTORY = Path(__file__).parent / "migrations"
LOCK = 0x4C61_6464_6572_0001  # "Ladder", 1: any constant that no other user of the database takes
_POLL_SECONDS = 0.1
_REMIND_SECONDS = 60.0

_log = structlog.get_logger(__name__)


def _log_wait(reason: str) -> None:
    _log.warning("migrate.waiting", reason=reason)


def migrate(database_url: str, *, directory: Path = DIRECTORY, waiting: Callable[[str], None] = _log_wait) -> list[str]:
    """
    Bring the database's schema up to date; return the names of the files applied now.

    `waiting` is told what is waited for, at once and then once a minute: another process that migrates, or one that
    uses a table that must be changed.

    Raises `Unavailable` if Postgres cannot be reached, `Misconfigured` if it can never be used as it is, and
    `SchemaMismatch` if a file that was applied earlier has changed since. Migrations of a newer release are left alone:
    they only add.
    """
    files = sorted(directory.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    with translated(), closing(Session(database_url, statement_timeout="0").connect(autocommit=True)) as connection:
        patience = _Patience(waiting)
        with _locked(connection, patience):
            _refuse_elsewhere(connection)
            connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY, sha256 text NOT NULL,"
                " applied_at timestamptz NOT NULL DEFAULT now())"
            )
            applied: dict[str, str] = dict(connection.execute("SELECT name, sha256 FROM schema_migrations").fetchall())
            done = []
            for file in files:
                statements = file.read_bytes()
                digest = hashlib.sha256(statements).hexdigest()
                if file.name not in applied:
                    _apply(connection, file.name, statements, digest, patience)
                    done.append(file.name)
                elif applied[file.name] != digest:
                    message = f"migration {file.name} was changed after it had been applied"
                    raise SchemaMismatch(message)
            return done


def check(database_url: str) -> None:
    """Raise `Misconfigured` if this database can never be used as it is, `Unavailable` if it cannot be reached."""
    with translated(), closing(Session(database_url).connect(autocommit=True)) as connection:
        _refuse_elsewhere(connection)


class _Patience:
    """Waits a moment, and says what for: at once, and then once a minute."""

    def __init__(self, waiting: Callable[[str], None]) -> None:
        self._waiting = waiting
        self._said_at: float | None = None

    def wait(self, reason: Callable[[], str]) -> None:
        if self._said_at is None or monotonic() - self._said_at >= _REMIND_SECONDS:
            self._waiting(reason())
            self._said_at = monotonic()
        sleep(_POLL_SECONDS)


@contextmanager
def _locked(connection: psycopg.Connection, patience: _Patience) -> Iterator[None]:
    """Be the only one that migrates, for the block: a pooler may keep the server's session, and with it the lock."""
    while not connection.execute(QUERIES["try_lock"], {"key": LOCK}).fetchall()[0][0]:
        patience.wait(lambda: _holder(connection))
    try:
        yield
    finally:
        with suppress(psycopg.Error):
            connection.execute(QUERIES["unlock"])


def _holder(connection: psycopg.Connection) -> str:
    row = connection.execute(QUERIES["holder"], {"key": LOCK}).fetchone()
    who = f"process {row[0]} of Postgres, application {row[1]!r}" if row else "another process"
    return f"the schema is being brought up to date by another process, which is waited for ({who})"


def _apply(connection: psycopg.Connection, name: str, statements: bytes, digest: str, patience: _Patience) -> None:
    while True:
        # A table that is in use is not waited for: all that come after the statement would wait behind it.
        with suppress(psycopg.errors.LockNotAvailable), connection.transaction():
            connection.execute(statements)
            connection.execute("INSERT INTO schema_migrations VALUES (%s, %s)", (name, digest))
            return
        patience.wait(lambda: f"migration {name} waits for a table that another session has locked")


def _refuse_elsewhere(connection: psycopg.Connection) -> None:
    """Raise `Misconfigured` if the tables are in another schema: these would be made anew, empty, and ranks with them."""
    rows = connection.execute(QUERIES["elsewhere"]).fetchall()
    if rows:
        ours, found = rows[0]
        message = (
            f"DATABASE_URL names a database whose tables are in the schema {found}, but sessions use {ours}: add"
            f" options=-csearch_path%3D{found} to it"
        )
        raise Misconfigured(message)
