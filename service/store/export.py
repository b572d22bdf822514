"""
The whole board at one instant, read in batches from one snapshot of Postgres.

The transaction is read-only and takes no transaction id, so the tailer's horizon, which is the oldest id that is
still open, passes it by: however long an export takes, the mirror goes on following. What it does hold back is the
vacuum.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from service.model import UserId
from service.order import ranked
from service.store.postgres import load_queries, translated
from service.store.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from service.model import Row

_QUERIES: dict[str, Any] = dict(load_queries(Path(__file__).parent / "export.sql"))
BATCH_ROWS = 5_000
# The first batch may have to wait for a sort of the table. Between two of them whoever takes the output may be slow,
# but must not keep the vacuum waiting for ever.
_SETTINGS = {"statement_timeout": "10min", "idle_in_transaction_session_timeout": "60s"}


class Snapshot:
    """The users as they were `as_of` one instant, `users` of them; made by `open_snapshot`."""

    def __init__(self, connection: psycopg.Connection, as_of: datetime, users: int) -> None:
        self._connection = connection
        self.as_of = as_of
        self.users = users

    def rows(self) -> Iterator[list[Row]]:
        """
        Give the rows of the board in its order, up to `BATCH_ROWS` at a time; iterate once. O(n log n) at most.

        Raises `Unavailable`, also when a batch was not asked for within a minute.
        """
        position, rank, last = 1, 1, None
        with translated(), self._connection.cursor("board") as cursor:
            cursor.execute(_QUERIES["board"])
            while found := cursor.fetchmany(BATCH_ROWS):
                users = [(UserId(user_id), username, rating) for user_id, username, rating in found]
                rows = ranked(users, position=position, rank=rank if users[0][2] == last else position)
                position, rank, last = rows[-1].position + 1, rows[-1].rank, rows[-1].rating
                yield rows


@contextmanager
def open_snapshot(database_url: str) -> Iterator[Snapshot]:
    """Take a snapshot of the users and keep it for the block. Raises `Unavailable`; `StoreBug` without our schema."""
    with translated():
        connection = Session(database_url, **_SETTINGS).connect()
    with closing(connection):
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        with translated():
            ((as_of, users),) = connection.execute(_QUERIES["as_of"]).fetchall()
        yield Snapshot(connection, as_of, users)
