"""
Clients that read and write all the time and know which answers can be right.

A write may have been committed at any moment between its request and its answer, or later if nobody knows its
outcome. So of every moment it is known which ratings a user may have had, and therefore the lowest and the highest
rank that any rating may have had. While nobody writes, both are the one rank that SQL counts.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec
import psycopg

from service.settings import Settings
from tests.servers.background import Background

WRITTEN_USERS = 40
READERS = 4
WRITERS = 3
READ_SECONDS = 4.0
"""No read takes longer: a call to a store that hangs, one to the other, and slack for a busy machine."""
WRITE_SECONDS = 7.0
"""Nor a write: five seconds, and slack."""
ROUNDING_SECONDS = 0.005
PAGE = 20


class Span(msgspec.Struct):
    """A rating that was sent: from when on it may have been committed, by when it surely was (else infinity)."""

    rating: int
    begun: float
    known: float
    version: int = 0


class Traffic:
    """Everything that was asked of the service, and what came of it; any wrong answer ends in `wrong`."""

    def __init__(self, address: str, settings: Settings, *, writing: bool, seed: int = 0) -> None:
        with psycopg.connect(settings.database_url) as connection:
            rows = connection.execute("SELECT id, rating FROM users").fetchall()
        self._dice = random.Random(seed)
        self._address, self._settings = address, settings
        self._ratings: dict[str, int] = dict(rows)
        self._ids = sorted(self._ratings)
        written = self._dice.sample(self._ids, WRITTEN_USERS) if writing else []
        self._spans = {user_id: [Span(self._ratings[user_id], 0, 0)] for user_id in written}
        self._quiet = sorted(rating for user_id, rating in rows if user_id not in self._spans)
        self.over = False
        self.wrong: list[str] = []
        self.answers = self.slowest_ms = 0
        self.seen: Counter[str] = Counter()

    async def run(self) -> None:
        """Read and write until it is over."""
        written = list(self._spans)
        async with httpx.AsyncClient(base_url=self._address, timeout=10, trust_env=False) as client:
            await asyncio.gather(
                *(self._repeat(self._read, client, self._ids) for _ in range(READERS)),
                *(self._repeat(self._write, client, written[n::WRITERS]) for n in range(WRITERS) if written),
            )

    async def _repeat(self, step: Any, client: httpx.AsyncClient, users: list[str]) -> None:
        while not self.over:
            try:
                await step(client, users)
            except Exception as error:  # noqa: BLE001  shown by the test, which ends with it
                self.wrong.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.002)

    def _took(self, begun: float, most: float, what: str) -> float:
        now = time.monotonic()
        self.slowest_ms = max(self.slowest_ms, int((now - begun) * 1000))
        if now - begun > most:
            self.wrong.append(f"{what} took {now - begun:.1f} s")
        return now

    async def _write(self, client: httpx.AsyncClient, users: list[str]) -> None:
        user_id, rating = self._dice.choice(users), self._dice.randint(100, 5000)
        span = Span(rating, time.monotonic(), math.inf)
        self._spans[user_id].append(span)
        answer = await client.put(f"/users/{user_id}/rating", json={"rating": rating})
        now = self._took(span.begun, WRITE_SECONDS, "a write")
        told = answer.json()
        if answer.status_code == 200:
            span.known, span.version = now, told["version"]
            outcome = answer.headers["x-mirror-write"]
            assert (outcome != "applied") <= (told["rank"] is None), told
            self.seen[f"write {outcome}"] += 1
        else:
            assert 503 == answer.status_code, answer.text
            assert answer.headers["retry-after"]
            if not told["type"].endswith("outcome-unknown"):
                self._spans[user_id].remove(span)
            self.seen[told["type"].removeprefix("/problems/")] += 1
        await asyncio.sleep(0.01)

    async def _read(self, client: httpx.AsyncClient, users: list[str]) -> None:
        user_id, begun = self._dice.choice(users), time.monotonic()
        if self._spans and self._dice.random() < 0.2:
            user_id = self._dice.choice(list(self._spans))
        paged = self._dice.random() < 0.3
        offset = self._dice.randrange(900)
        answer = await client.get(f"/leaderboard?limit={PAGE}&offset={offset}" if paged else f"/users/{user_id}")
        now = self._took(begun, READ_SECONDS, "a read")
        self.answers += 1
        if answer.status_code == 503:
            assert answer.headers["retry-after"]
            self.seen["read refused"] += 1
            return
        assert 200 == answer.status_code, answer.text
        source, lag = answer.headers["x-rank-source"], answer.headers.get("x-mirror-lag-ms")
        stale = "x-data-stale" in answer.headers
        is_unknown = source == "redis" and lag is None
        assert lag is None or source == "redis", "a lag is the mirror's"
        assert stale or not is_unknown, "an unknown lag is not marked"
        assert stale or int(lag or 0) <= 2000, f"a lag of {lag} ms is not marked"
        self.seen[f"stale {source}" if stale else source] += 1
        window = (-math.inf if is_unknown else begun - int(lag or 0) / 1000 - ROUNDING_SECONDS, now)
        body = answer.json()
        told = body["items"] if paged else [body]
        if paged:
            assert len(self._ids) == body["total"], body["total"]
            assert list(range(offset + 1, offset + PAGE + 1)) == [row["position"] for row in told]
        possible = {user: self._possible(user, *window) for user in self._spans}
        for row in told:
            self._check(row, possible, f"{source}, lag {lag}, asked {now - begun:.3f} s ago")

    def _possible(self, user_id: str, since: float, until: float) -> set[int]:
        """Return the ratings that a user may have had at some moment between."""
        found, replaced = set(), math.inf
        for span in reversed(self._spans[user_id]):
            if span.begun <= until:
                found.add(span.rating)
            replaced = min(replaced, span.known)
            # Whatever came before was replaced by then, whoever asks.
            if replaced < since:
                break
        return found

    def _check(self, row: dict[str, Any], possible: dict[str, set[int]], told: str) -> None:
        user_id, rating = row["id"], row["rating"]
        assert rating in possible.get(user_id, {self._ratings[user_id]}), (row, told)
        above = len(self._quiet) - bisect_right(self._quiet, rating)
        others = [ratings for user, ratings in possible.items() if user != user_id]
        least = 1 + above + sum(min(ratings) > rating for ratings in others)
        most = 1 + above + sum(max(ratings) > rating for ratings in others)
        assert least <= row["rank"] <= most, (row, (least, most), told)
        assert row["position"] >= row["rank"]

    def check_kept(self) -> int:
        """Every acknowledged write is in Postgres, or a newer one; returns how many were acknowledged."""
        with psycopg.connect(self._settings.database_url) as connection:
            held = {row[0]: row[1:] for row in connection.execute("SELECT id, rating, version FROM users").fetchall()}
        for user_id, spans in self._spans.items():
            rating, version = held[user_id]
            assert version >= max(span.version for span in spans), user_id
            assert rating in self._possible(user_id, time.monotonic(), time.monotonic()), user_id
        return sum(bool(span.version) for spans in self._spans.values() for span in spans)


@contextmanager
def traffic(background: Background, address: str, settings: Settings, *, writing: bool) -> Iterator[Traffic]:
    """Clients that are busy until the end of the block; no answer was wrong."""
    clients = Traffic(address, settings, writing=writing)
    work = background.start(clients.run())
    try:
        yield clients
    finally:
        clients.over = True
        work.result(20)
    assert [] == clients.wrong[:3], len(clients.wrong)
