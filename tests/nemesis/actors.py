"""Who takes part: clients over HTTP, somebody with an SQL prompt, and those who only look."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Literal

import httpx
import msgspec
import psycopg
import redis.asyncio
from redis.exceptions import RedisError

from .history import Commit, History, Line, Op, Outcome, Sample, Stall
from .world import Node, World, wall_to_monotonic

USERS, FAVOURITES = 60, 5
FAVOUR_SHARE = 0.5
"""Of what is asked, so much is about a few users: what is late meets what is newer."""
REST_SECONDS = 0.01
CERTAIN = {400, 404, 409, 412, 413, 415}
Consistency = Literal["token", "sticky", "none"]


class Names:
    """What is asked for once in a run: a rating of a user, a username. A commit tells then who asked for it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._ratings: dict[str, list[int]] = {}
        self._count = 0

    def rating(self, user_id: str) -> int:
        """A rating that nobody has asked for for this user, near those of the others, so that many tie."""
        if not self._ratings.get(user_id):
            base = 1450 if user_id not in self._ratings else 450
            self._ratings[user_id] = self._chance.sample(range(base, base + 900), 900)
        return self._ratings[user_id].pop()

    def username(self) -> str:
        """A name that nobody else has."""
        self._count += 1
        return f"{self._chance.choice('abcXYZ_-.9')}{self._chance.randrange(100)}n{self._count}"


def some_user(chance: random.Random) -> str:
    """Anybody, or one of the favourites."""
    return f"u{1 + chance.randrange(FAVOURITES if chance.random() < FAVOUR_SHARE else USERS)}"


class Client:
    """A session: one request after the other, at one node (`sticky`) or any; `token` presents what it knows."""

    def __init__(self, number: int, world: World, history: History, names: Names, consistency: Consistency) -> None:
        self._number = number
        self._world = world
        self._history = history
        self._names = names
        self._consistency = consistency
        self._chance = random.Random(f"{number} {names.username()}")
        self._known: dict[str, int] = {}
        self._offset = wall_to_monotonic()

    async def live(self, over: Callable[[], bool]) -> None:
        """Ask until it is over."""
        async with httpx.AsyncClient(trust_env=False, timeout=12) as client:
            while not over():
                await self._ask(client)
                await asyncio.sleep(REST_SECONDS * self._chance.random())

    def _node(self) -> Node:
        nodes = self._world.nodes
        return nodes[self._number % len(nodes)] if self._consistency == "sticky" else self._chance.choice(nodes)

    async def _ask(self, client: httpx.AsyncClient) -> None:
        verb = self._chance.choices(("user", "page", "rate", "create"), (40, 20, 34, 6))[0]
        user_id = some_user(self._chance)
        if verb == "user":
            await self._send(client, "user", "GET", f"/users/{user_id}", id=user_id)
        elif verb == "page":
            await self._page(client, user_id)
        elif verb == "rate":
            asked = self._names.rating(user_id)
            target = f"/users/{user_id}/rating"
            await self._send(client, "rate", "PUT", target, {"rating": asked}, id=user_id, asked=asked)
        else:
            asked, name = self._names.rating(user_id), self._names.username()
            sent = {"id": user_id, "username": name, "rating": asked}
            await self._send(client, "create", "POST", "/users", sent, id=user_id, asked=asked, username=name)

    async def _page(self, client: httpx.AsyncClient, user_id: str) -> None:
        limit, offset = self._chance.choice((3, 10, 100)), self._chance.choice((0, 0, 5, 40))
        op, cursor = await self._send(
            client, "page", "GET", f"/leaderboard?limit={limit}&offset={offset}", id=user_id, offset=offset
        )
        if cursor and op.rows and self._chance.random() < 0.5:
            after = (op.rows[-1].rating, op.rows[-1].username)
            target = f"/leaderboard?limit={limit}&cursor={cursor}"
            await self._send(client, "page", "GET", target, id=user_id, after=after)

    async def _send(
        self, client: httpx.AsyncClient, verb: Any, method: str, target: str, body: object = None, **said: Any
    ) -> tuple[Op, str | None]:
        node, headers = self._node(), {}
        reads = verb in ("user", "page")
        if reads and self._consistency == "token" and said["id"] in self._known:
            headers["X-Consistency-Token"] = said["token"] = f"{said['id']}:{self._known[said['id']]}"
        base: dict[str, Any] = {"client": self._number, "node": node.number, "born": node.born, "op": verb, **said}
        base["begin"] = time.monotonic()
        try:
            answer = await client.request(method, f"http://127.0.0.1:{node.port}{target}", json=body, headers=headers)
        except httpx.ConnectError:
            return self._note(base, "fail"), None
        except httpx.HTTPError:
            return self._note(base, "unknown"), None
        base["end"] = time.monotonic()
        base["status"] = answer.status_code
        if answer.status_code in (200, 201):
            shown = answer.json()
            return self._note({**base, **self._read(answer, shown, base)}, "ok"), shown.get("next_cursor")
        if answer.status_code == 404 and reads:
            return self._note(base, "ok"), None
        certain = answer.status_code in CERTAIN or b"/problems/unavailable" in answer.content
        return self._note(base, "fail" if certain else "unknown"), None

    def _note(self, said: dict[str, Any], outcome: Outcome) -> Op:
        op = Op(outcome=outcome, **{"end": time.monotonic(), **said})
        self._history.ops.append(op)
        if op.version is not None:
            self._known[op.id] = max(op.version, self._known.get(op.id, -1))
        return op

    def _read(self, answer: httpx.Response, shown: Any, base: dict[str, Any]) -> dict[str, Any]:
        told = answer.headers
        lag, as_of = told.get("X-Mirror-Lag-Ms"), told.get("X-Rank-As-Of")
        said: dict[str, Any] = {
            "source": told.get("X-Rank-Source", ""),
            "lag_ms": int(lag) if lag else None,
            "stale": told.get("X-Data-Stale") == "true",
            "as_of": datetime.fromisoformat(as_of).timestamp() + self._offset if as_of else None,
            "mirror": told.get("X-Mirror-Write", ""),
        }
        if base["op"] == "page":
            return {**said, "total": shown["total"], "rows": tuple(msgspec.convert(shown["items"], list[Line]))}
        return {**said, **{name: shown[name] for name in ("version", "rating", "username", "rank", "position")}}


async def write_sql(world: World, names: Names, over: Callable[[], bool], *, seed: object) -> None:
    """Rename and delete users behind the service's back, until it is over."""
    chance = random.Random(f"sql {seed}")
    while not over():
        with contextlib.suppress(psycopg.Error):
            async with await _connect(world) as connection:
                while not over():
                    user_id = some_user(chance)
                    if chance.random() < 0.25:
                        await connection.execute("DELETE FROM users WHERE id = %s", [user_id])
                    else:
                        name = names.username()
                        await connection.execute("UPDATE users SET username = %s WHERE id = %s", [name, user_id])
                    await asyncio.sleep(0.05 * chance.random())
        await asyncio.sleep(0.05)


class Auditor:
    """Reads what was committed again and again, to know by when each commit surely was."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._offset = wall_to_monotonic()
        self._seen: dict[int, Commit] = {}

    @property
    def commits(self) -> list[Commit]:
        """What has been seen so far."""
        return list(self._seen.values())

    async def watch(self, over: Callable[[], bool]) -> None:
        """Look until it is over."""
        while not over():
            with contextlib.suppress(psycopg.Error):
                async with await _connect(self._world) as connection:
                    while not over():
                        await self._look(connection)
                        await asyncio.sleep(0.01)
            await asyncio.sleep(0.02)

    async def look(self) -> None:
        """Look once, at all of it."""
        async with await _connect(self._world) as connection:
            await self._look(connection, everything=True)

    async def _look(self, connection: psycopg.AsyncConnection[Any], *, everything: bool = False) -> None:
        # The numbers are not in the order of the commits: a lower one may still come.
        since = 0 if everything else max(self._seen, default=0) - 500
        query = "SELECT seq, id, version, rating, username, clock, xact::text FROM audit WHERE seq > %s"
        rows = await (await connection.execute(query, [since])).fetchall()
        now = time.monotonic()
        for seq, user_id, version, rating, username, clock, xact in rows:
            if seq not in self._seen:
                self._seen[seq] = Commit(
                    id=user_id, version=version, rating=rating, username=username,
                    not_before=clock + self._offset - 0.005, not_after=now, xact=int(xact),
                )  # fmt: skip


class Sampler:
    """Reads the whole users hash in one step, again and again, but not while `shaken` is odd: somebody tampers with it."""

    def __init__(self, world: World, history: History) -> None:
        self._url = world.settings.redis_url
        self._samples = history.samples
        self._offset = wall_to_monotonic()
        self.shaken = 0

    async def watch(self, over: Callable[[], bool]) -> None:
        """Look until it is over."""
        client: Any = redis.asyncio.Redis.from_url(self._url, protocol=2, socket_timeout=0.5)
        async with contextlib.aclosing(client):
            while not over():
                begin, shaken = time.monotonic(), self.shaken
                with contextlib.suppress(RedisError, OSError, RuntimeError):
                    pipeline = client.pipeline(transaction=True)
                    pipeline.hgetall("{ladder}:users")
                    pipeline.hmget("{ladder}:state", "epoch", "ready", "applied")
                    pipeline.time()
                    fields, (epoch, ready, applied), _ = await pipeline.execute()
                    if shaken == self.shaken and shaken % 2 == 0:
                        self._samples.append(self._sample(f"{epoch} {shaken}", begin, fields, ready, applied))
                await asyncio.sleep(0.08)

    def _sample(self, era: str, begin: float, fields: dict[bytes, bytes], ready: object, applied: Any) -> Sample:
        return Sample(
            era=era,
            begin=begin,
            end=time.monotonic(),
            ready=ready == b"1",
            applied=float(applied or 0) / 1000 + self._offset,
            versions={user_id.decode(): int(held.partition(b"|")[0]) for user_id, held in fields.items()},
        )


async def watch_the_clock(stalls: list[Stall], over: Callable[[], bool]) -> None:
    """Note when this machine, or this process, did not run."""
    while not over():
        begin = time.monotonic()
        await asyncio.sleep(0.02)
        end = time.monotonic()
        if end - begin > 0.07:
            stalls.append(Stall(begin=begin + 0.02, end=end))


def clients(world: World, history: History, names: Names) -> Iterable[Client]:
    """Two of each kind at every node's side."""
    kinds: tuple[Consistency, ...] = ("token", "token", "token", "sticky", "sticky", "sticky", "none", "none")
    return [Client(number, world, history, names, kind) for number, kind in enumerate(kinds)]


async def _connect(world: World) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(world.settings.database_url, autocommit=True, connect_timeout=2)
