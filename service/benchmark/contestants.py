"""
The ways to ask a store where somebody stands, or for a page: SQL, and the product's own scripts.

Each is called on one connection, again as soon as it has answered. Whatever SQL can do with an index it has: those of
the product's schema. The SQL pages are spared the ranks and the total that Ladder's pages hold.
"""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

import hiredis
import msgspec

from service.model import Around, Point, UserId, Window
from service.store import lua
from service.store import redis as redis_store
from service.store.keys import BoardKeys
from service.store.mirror import Mirror
from service.store.postgres import QUERIES

from .results import KindOfRead, Sample, Timing
from .sessions import session

if TYPE_CHECKING:
    import asyncio
    import random
    from collections.abc import Awaitable, Callable, Iterator, Sequence

PAGE = 25
BATCH = 100
RADIUS = 12
_FEWEST_CALLS = 3
_SECONDS = 60.0

_COUNT = "SELECT count(*) FROM users WHERE rating > %s"
_ROW_NUMBER = """SELECT position FROM (
    SELECT id, row_number() OVER (ORDER BY rating DESC, username) AS position FROM users
) AS board WHERE id = %s"""
_OFFSET = "SELECT id, username, rating FROM users ORDER BY rating DESC, username LIMIT %s OFFSET %s"
_KEYSET = """SELECT * FROM (
    (SELECT id, username, rating FROM users
     WHERE rating = %(rating)s AND username > %(username)s ORDER BY username LIMIT %(limit)s)
    UNION ALL
    (SELECT id, username, rating FROM users
     WHERE rating < %(rating)s ORDER BY rating DESC, username LIMIT %(limit)s)
) AS both_ranges ORDER BY rating DESC, username LIMIT %(limit)s"""


class User(msgspec.Struct, frozen=True):
    """Somebody to ask for."""

    id: UserId
    username: str
    rating: int


class Contestant(msgspec.Struct, frozen=True):
    """One way to ask; `measure` does so for as many seconds."""

    timing: Timing
    measure: Callable[[float], Sample]


def timed(call: Callable[[], object], seconds: float) -> Sample:
    """Call for so long, and at least a few times."""
    times: list[float] = []
    began = now = time.perf_counter()
    while now - began < seconds or len(times) < _FEWEST_CALLS:
        call()
        before, now = now, time.perf_counter()
        times.append(now - before)
    return Sample.of(times, seconds=now - began)


async def timed_async(call: Callable[[], Awaitable[object]], seconds: float) -> Sample:
    """Do as `timed` does."""
    times: list[float] = []
    began = now = time.perf_counter()
    while now - began < seconds or len(times) < _FEWEST_CALLS:
        await call()
        before, now = now, time.perf_counter()
        times.append(now - before)
    return Sample.of(times, seconds=now - began)


class Asked:
    """Who is asked for: these of all users, in random order, each once before any comes again."""

    def __init__(self, users: Sequence[User], total: int, source: random.Random) -> None:
        self._users = users
        self._total = total
        self._source = source
        self._order = list(range(len(users)))
        source.shuffle(self._order)
        self._next = 0

    def one(self) -> User:
        """The next user."""
        self._next = (self._next + 1) % len(self._order)
        return self._users[self._order[self._next]]

    def many(self) -> list[UserId]:
        """The next users' ids."""
        return [self.one().id for _ in range(min(BATCH, len(self._users)))]

    def offset(self) -> int:
        """How many rows stand before a page."""
        return self._source.randrange(max(self._total - PAGE, 1))


@contextmanager
def in_sql(database_url: str, asked: Asked) -> Iterator[list[Contestant]]:
    """The ways of SQL, each a prepared statement."""
    with session(database_url, autocommit=True) as connection:
        cursor = connection.cursor()

        def query(text: str, parameters: Any) -> list[tuple[Any, ...]]:
            return cursor.execute(text, parameters, prepare=True).fetchall()

        def keyset() -> None:
            user = asked.one()
            query(_KEYSET, {"rating": user.rating, "username": user.username, "limit": PAGE})

        yield [
            _blocking("sql-count", "SQL: COUNT(*) WHERE rating > mine", "rank", lambda: query(_COUNT, [asked.one().rating])),
            _blocking("sql-row-number", "SQL: row_number() over all", "rank", lambda: query(_ROW_NUMBER, [asked.one().id])),
            _blocking(
                "sql-batch",
                f"SQL: {BATCH} users in a statement, counted once by rating",
                "rank",
                lambda: query(QUERIES["standings_of_many"], {"ids": asked.many()}),
                batch=BATCH,
            ),
            _blocking("sql-offset", "SQL: LIMIT and OFFSET", "page", lambda: query(_OFFSET, [PAGE, asked.offset()])),
            _blocking("sql-keyset", "SQL: after a point of the order", "page", keyset),
        ]  # fmt: skip


def _blocking(name: str, title: str, kind: KindOfRead, call: Callable[[], object], *, batch: int = 1) -> Contestant:
    return Contestant(Timing(name, title, kind, batch), lambda seconds: timed(call, seconds))


@contextmanager
def in_redis(redis_url: str, source: str, asked: Asked, runner: asyncio.Runner) -> Iterator[list[Contestant]]:
    """The product's scripts: by its own client, and one also over a bare socket, to see what the store itself takes."""
    client = redis_store.connect(redis_url, answer_seconds=_SECONDS)
    mirror = Mirror(client)
    keys = BoardKeys.of("ladder")

    def after() -> Awaitable[object]:
        user = asked.one()
        return mirror.pages([Window(PAGE, after=Point(user.rating, user.username))], source=source)

    def own(
        name: str, title: str, kind: KindOfRead, call: Callable[[], Awaitable[object]], *, batch: int = 1
    ) -> Contestant:
        timing = Timing(name, f"Ladder: {title}", kind, batch)
        return Contestant(timing, lambda seconds: runner.run(timed_async(call, seconds)))

    # Loads the scripts as well.
    runner.run(mirror.standings([asked.one().id], source=source))
    with BareRedis(redis_url) as bare:
        script = ("EVALSHA", lua.RANK.sha, "3", keys.board, keys.users, keys.state, source)
        yield [
            _blocking(
                "ladder-store", "Ladder: rank script, over a bare socket", "rank", lambda: bare.call(*script, asked.one().id)
            ),
            own("ladder", "rank script, by its own client", "rank", lambda: mirror.standings([asked.one().id], source=source)),
            own(
                "ladder-batch",
                f"{BATCH} users in a call, as concurrent requests share one",
                "rank",
                lambda: mirror.standings(asked.many(), source=source),
                batch=BATCH,
            ),
            own("ladder-offset", "page at an offset", "page", lambda: mirror.pages([Window(PAGE, asked.offset())], source=source)),
            own("ladder-keyset", "page after a point of the order", "page", after),
            own(
                "ladder-around",
                "the rows around a user",
                "around",
                lambda: mirror.neighbors([Around(asked.one().id, RADIUS)], source=source),
            ),
        ]  # fmt: skip
    runner.run(client.aclose())


class BareRedis:
    """The least that a client can be: a socket, and hiredis to pack and to read. Never for more than one caller."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(parts.path)
            number = parse_qs(parts.query).get("db", ["0"])[0]
        else:
            self._socket = socket.create_connection((parts.hostname or "", parts.port or 6379))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = parts.path.strip("/") or "0"
        self._socket.settimeout(_SECONDS)
        self._reader = hiredis.Reader()
        if parts.password:
            self.call("AUTH", *([parts.username] if parts.username else []), parts.password)
        self.call("SELECT", number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self, *words: str) -> Any:
        """Return the reply; raises ConnectionError for one that is an error."""
        self._socket.sendall(hiredis.pack_command(words))  # type: ignore[arg-type]  # it takes any number
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(65536))
        if isinstance(reply, hiredis.HiredisError):
            raise ConnectionError(str(reply))
        return reply
