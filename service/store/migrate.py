"""
Forward-only schema migrations: `migrations/NNNN_name.sql`, each applied once, in order.

A file runs in one transaction together with its line in `schema_migrations`, so a crash leaves either
all of it or nothing. An advisory lock makes starting several processes at once safe: one applies, the
others wait and find nothing to do.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import psycopg

from service.errors import SchemaMismatch
from service.store.postgres import SESSION_OPTIONS, translated

DIRECTORY = Path(__file__).parent / "migrations"
_LOCK = 0x4C61_6464_6572_0001  # "Ladder", 1: any constant that no other user of the database takes


def migrate(database_url: str, *, directory: Path = DIRECTORY) -> list[str]:
    """
    Bring the database's schema up to date; return the names of the files applied now.

    Raises `Unavailable` if Postgres cannot be reached, and `SchemaMismatch` if a file that was
    applied earlier has changed since. Migrations of a newer release are left alone: they only add.
    """
    files = sorted(directory.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    with (
        translated(),
        psycopg.connect(database_url, autocommit=True, connect_timeout=5, options=SESSION_OPTIONS) as connection,
    ):
        # Waiting for the lock may take as long as another process's migration does.
        connection.execute("SET statement_timeout = 0")
        connection.execute("SET lock_timeout = 0")
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
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
                with connection.transaction():
                    connection.execute(statements)
                    connection.execute("INSERT INTO schema_migrations VALUES (%s, %s)", (file.name, digest))
                done.append(file.name)
            elif applied[file.name] != digest:
                message = f"migration {file.name} was changed after it had been applied"
                raise SchemaMismatch(message)
        return done
