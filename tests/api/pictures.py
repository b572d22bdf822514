"""What both stores hold: the same after a request that must change nothing as after the one before it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psycopg
import redis

from service.settings import Settings
from tests.ranking.equality import board_of


class Pictures:
    """The last picture that was taken, and how to take another."""

    def __init__(self, take: Callable[[], object]) -> None:
        self._take = take
        self.last = take()

    def next(self) -> tuple[object, object]:
        """Return the last picture and another one: nothing should have changed in between."""
        before, self.last = self.last, self._take()
        return before, self.last


@contextlib.contextmanager
def pictures_of(settings: Settings) -> Iterator[Pictures]:
    """Pictures of the whole users table, with its hidden columns, of the whole board, and of the names of all keys."""
    with (
        psycopg.connect(settings.database_url, autocommit=True) as connection,
        redis.Redis.from_url(settings.redis_url, protocol=2) as client,
    ):

        def take() -> object:
            rows = connection.execute("SELECT u.*, u.xmin::text FROM users u ORDER BY id").fetchall()
            keys = sorted(key for key in client.scan_iter(count=1000) if not key.startswith(b"user:"))
            return rows, board_of(client), keys

        yield Pictures(take)
