"""Sessions in which the benchmark asks Postgres: set as the service's own, but without limits of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.store.session import Session

if TYPE_CHECKING:
    import psycopg

_PATIENT = dict.fromkeys(("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"), "0")


def session(database_url: str, *, autocommit: bool = False) -> psycopg.Connection:
    """Open one; it commits and ends with a `with` block. Raises `Misconfigured` and psycopg's errors."""
    return Session(database_url, **_PATIENT).connect(autocommit=autocommit)
