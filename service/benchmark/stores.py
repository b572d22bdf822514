"""
The stores that are measured: a database and a Redis database of the benchmark's own, in the servers that were named.

Nothing of an installation in the same servers is read or changed. The made-up users are the same every time but for
their ids.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
import redis
from psycopg import sql

from service import demo
from service.arguments import Unusable
from service.progress import progress
from service.ranking.tail import Tailer
from service.store import redis as redis_store
from service.store.migrate import migrate
from service.store.mirror import Mirror

from .sessions import session

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "ladder-benchmark"
"""The key that says that a Redis database is ours, and which Postgres database its board mirrors."""
REDIS_DATABASE = 9


class Stores:
    """A database with so many made-up users, and a Redis database of which the board is, or will be, theirs."""

    def __init__(self, server_url: str, redis_url: str, users: int) -> None:
        self.users = users
        self.name = f"ladder_benchmark_{users}"
        self._server_url = server_url
        parts = urlsplit(server_url)
        self.database_url = f"{parts.scheme}://{parts.netloc}/{self.name}?{parts.query}"
        self.redis_url = _numbered(redis_url, REDIS_DATABASE)

    def prepare(self) -> None:
        """
        Make the users unless they are there from a run before, and bring them all onto the board.

        Raises `Unusable` when the Redis database holds what is not ours.
        """
        self._claim_redis()
        with session(self._server_url, autocommit=True) as server:
            name = sql.Identifier(self.name)
            if not self._is_whole(server):
                # Perhaps of a run that was interrupted.
                server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
                server.execute(sql.SQL("CREATE DATABASE {}").format(name))
        migrate(self.database_url)
        demo.fill(self.database_url, self.users)
        with session(self.database_url, autocommit=True) as own:
            # What a server does sooner or later in the background, it is not to do while it is measured.
            own.execute("VACUUM (ANALYZE) users")
            own.execute("CHECKPOINT")
        asyncio.run(self._fill_board())

    def _is_whole(self, server: psycopg.Connection) -> bool:
        if not server.execute("SELECT FROM pg_database WHERE datname = %s", [self.name]).rowcount:
            return False
        with session(self.database_url) as own, suppress(psycopg.errors.UndefinedTable):
            return own.execute("SELECT count(*) FROM users").fetchone() == (self.users,)
        return False

    def ids(self) -> list[str]:
        """All users' ids, in one order."""
        with session(self.database_url) as connection:
            return [row[0] for row in connection.execute("SELECT id FROM users ORDER BY id")]

    def remove(self) -> None:
        """Drop the database and empty the Redis database, if it still is ours."""
        with redis.Redis.from_url(self.redis_url) as client:
            if client.get(MARK) is not None:
                client.flushdb(asynchronous=True)
        with session(self._server_url, autocommit=True) as server:
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.name)))

    def _claim_redis(self) -> None:
        with redis.Redis.from_url(self.redis_url) as client:
            mark = client.get(MARK)
            if mark is None and client.dbsize():
                message = f"database {REDIS_DATABASE} of that Redis is not empty, and the benchmark needs it for itself"
                raise Unusable(message)
            if mark != self.name.encode():
                client.flushdb()
                client.set(MARK, self.name)

    async def _fill_board(self) -> None:
        with progress("Board", self.users) as report:
            async with redis_store.connect_feed(self.redis_url) as client:
                tailer = Tailer(self.database_url, Mirror(client))
                await tailer.catch_up(progress=lambda users: report(users, f"{users:,} users"))


def _numbered(redis_url: str, number: int) -> str:
    parts = urlsplit(redis_url)
    if parts.scheme == "unix":
        query = dict(parse_qsl(parts.query)) | {"db": str(number)}
        return f"unix://{parts.netloc}{parts.path}?{urlencode(query)}"
    return urlunsplit(parts._replace(path=f"/{number}"))


@contextmanager
def prepared(server_url: str, redis_url: str, users: int, *, keep: bool) -> Iterator[Stores]:
    """Have stores with so many users for the block; `keep` leaves them for the next run."""
    stores = Stores(server_url, redis_url, users)
    try:
        stores.prepare()
        yield stores
    finally:
        if not keep:
            stores.remove()
