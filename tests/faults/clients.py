"""Clients of a service in a process of its own: they write at once, remember what they were told, and check it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import httpx
import msgspec
import psycopg
import redis

from service.settings import Settings
from tests.api.serving import Service
from tests.ranking.equality import assert_mirror_equals_ledger, ledger_board, mirror_board

USERS = "{ladder}:users"
FIRST_RATING = 1500


def measured(what: str) -> None:
    """Print what a run has measured: `pytest -rP` shows it."""
    print(what)  # noqa: T201  captured, and shown to whoever asks


def insert(settings: Settings, count: int) -> list[str]:
    """Create users `user1`... by SQL, all at 1500; returns their ids."""
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO users (id, username, rating)"
            " SELECT 'user' || n, 'name-' || n, %s FROM generate_series(1, %s) n",
            (FIRST_RATING, count),
        )
    return [f"user{number}" for number in range(1, count + 1)]


@contextmanager
def looking_at(settings: Settings) -> Iterator[Callable[[str], int]]:
    """What version of a user the mirror itself holds, 0 for none."""
    with redis.Redis.from_url(settings.redis_url) as client:

        def version(user_id: str) -> int:
            held: Any = client.hget(USERS, user_id)
            return int(held.partition(b"|")[0]) if held else 0

        yield version


async def until_equal(settings: Settings, seconds: float = 20) -> float:
    """Wait until every row of the mirror is what SQL says; returns the seconds that took."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        board, users, size = mirror_board(settings)
        if ledger_board(settings) == (board, users) and size == len(board):
            return time.monotonic() - begun
        await asyncio.sleep(0.02)
    await assert_mirror_equals_ledger(settings)
    return time.monotonic() - begun


class Write(msgspec.Struct, frozen=True):
    """A rating that was sent: `version` is the one that was acknowledged, 0 if nobody knows what became of it."""

    rating: int
    version: int


class Clients:
    """So many at once, each with users of its own, so that it knows what must be there."""

    def __init__(self, service: Service, users: list[str], *, clients: int, seed: int = 0) -> None:
        self._dice = random.Random(seed)
        self._url = f"http://127.0.0.1:{service.settings.port}"
        self._settings = service.settings
        self._shares = [users[number::clients] for number in range(clients)]
        self._written: dict[str, list[Write]] = {}
        self.over = False
        self.acknowledged = self.refused = self.unknown = self.turned_away = self.lately = 0

    async def write(self) -> None:
        """Write, all of them, until it is over."""
        await asyncio.gather(*(self._write(share) for share in self._shares))

    async def _write(self, users: list[str]) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=8, trust_env=False) as client:
            while not self.over:
                user_id, rating = self._dice.choice(users), self._dice.randint(100, 5000)
                # Whatever is not answered may have been carried out.
                written = self._written.setdefault(user_id, [])
                try:
                    answer = await client.put(f"/users/{user_id}/rating", json={"rating": rating})
                except httpx.ConnectError:
                    self.turned_away += 1
                    await asyncio.sleep(0.02)
                    continue
                except httpx.TransportError:
                    self.unknown += 1
                    written.append(Write(rating, 0))
                    await asyncio.sleep(0.02)
                    continue
                told = answer.json()
                if answer.status_code == 200:
                    self.acknowledged += 1
                    self.lately += 1
                    assert rating == told["rating"]
                    written.append(Write(rating, told["version"]))
                elif told["type"].endswith("outcome-unknown"):
                    self.unknown += 1
                    written.append(Write(rating, 0))
                else:
                    # Nothing was changed, it says, so nothing is noted.
                    assert 503 == answer.status_code, told
                    self.refused += 1

    def check(self) -> None:
        """Every acknowledged write is there, or one that was sent after it; a refused one never."""
        with psycopg.connect(self._settings.database_url) as connection:
            rows = {row[0]: row[1:] for row in connection.execute("SELECT id, rating, version FROM users").fetchall()}
        for user_id, written in self._written.items():
            rating, version = rows[user_id]
            known = [number for number, write in enumerate(written) if write.version]
            last = written[known[-1]] if known else Write(FIRST_RATING, 0)
            later = written[known[-1] + 1 :] if known else written
            assert version >= last.version, user_id
            assert rating in {last.rating, *(write.rating for write in later)}, user_id
            assert later or not known or version == last.version, user_id


class Watch:
    """Looks at the mirror again and again, and notes when it first held what."""

    def __init__(self, settings: Settings, users: list[str]) -> None:
        self._settings, self._users = settings, users
        self._held: dict[str, list[tuple[int, float]]] = {user_id: [(0, 0.0)] for user_id in users}
        self._news = asyncio.Condition()
        self._over = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        # Not by cancelling it: Python 3.11 may lose that inside a driver's timeout.
        assert self._task
        self._over = True
        await self._task

    async def _look(self) -> None:
        async with redis.asyncio.Redis.from_url(self._settings.redis_url) as client:
            while not self._over:
                held: list[Any] = await client.hmget(USERS, self._users)
                now = time.monotonic()
                for user_id, value in zip(self._users, held, strict=True):
                    version = int(value.partition(b"|")[0]) if value else 0
                    if version != self._held[user_id][-1][0]:
                        self._held[user_id].append((version, now))
                async with self._news:
                    self._news.notify_all()
                await asyncio.sleep(0.005)

    async def holds(self, user_id: str, version: int) -> None:
        """Return as soon as the mirror holds this version of the user, or a newer one."""
        async with self._news:
            await self._news.wait_for(lambda: self._held[user_id][-1][0] >= version)

    def seen_at(self, user_id: str, version: int) -> float:
        """When the mirror was first seen to hold it; `holds` has returned before."""
        return next(at for held, at in self._held[user_id] if held >= version)
