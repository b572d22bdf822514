"""The nemesis: does what the schedule says, notes it, and puts everything right again."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

import psycopg
import redis.asyncio
from redis.exceptions import RedisError

from service.errors import LadderError
from service.ranking.reconcile import LockBusy
from service.ranking.repair import NotSafe
from service.ranking.tail import Tailer
from service.store import redis as redis_store
from service.store.mirror import Mirror, Refused
from tests.ranking.reconciling import reconcile
from tests.servers.proxy import Proxy

from .actors import Sampler
from .history import Fault, History
from .schedule import Step
from .world import Node, World

LOAD_SECONDS = 10.0
NOT_A_DEFECT = (LadderError, NotSafe, LockBusy, Refused, TimeoutError)
"""What a reconciliation may end with while stores come and go."""

Kind = Literal["redis", "postgres", "node", "work"]

COMMANDS = {
    "flushall": ("FLUSHALL",),
    "delete board": ("DEL", "{ladder}:board"),
    "delete state": ("DEL", "{ladder}:state"),
    "script flush": ("SCRIPT", "FLUSH"),
}
WAYS: dict[str, Callable[[Proxy, float], object]] = {
    "slow way": lambda proxy, seconds: setattr(proxy, "latency", seconds),
    "requests lost": lambda proxy, _: setattr(proxy, "lose_requests", True),
    "replies lost": lambda proxy, _: setattr(proxy, "lose_replies", True),
    "held back": lambda proxy, _: proxy.pause(),
    "refused": lambda proxy, _: proxy.refuse(),
}


class Nemesis:
    """Strikes one world. One fault of each store and node at a time; faults of different ones overlap."""

    def __init__(self, world: World, history: History, sampler: Sampler, seed: int) -> None:
        self._world = world
        self._faults = history.faults
        self._sampler = sampler
        self._chance = random.Random(f"nemesis {seed}")
        self._locks = {name: asyncio.Lock() for name in ("redis", "postgres", "work")}
        self._locks |= {f"node{node.number}": asyncio.Lock() for node in world.nodes}

    async def follow(self, steps: list[Step]) -> None:
        """Do all of it, at its time; return when the last fault is over."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for step in steps:
                await asyncio.sleep(max(0.0, begun + step.at - time.monotonic()))
                group.create_task(self._strike(step))

    async def _strike(self, step: Step) -> None:
        node = self._world.nodes[self._chance.randrange(len(self._world.nodes)) if step.node is None else step.node]
        name, seconds = step.name, step.seconds
        if name in ("kill node", "stop node"):
            await (self._kill_node if name == "kill node" else self._stop_node)(node, seconds)
        elif name.startswith("redis killed"):
            await self._kill_redis(name, seconds, empty=name.endswith("empty"))
        elif name in WAYS:
            await self._harm(step)
        elif name in COMMANDS:
            await self._command(name)
        elif name in ("incremental", "full"):
            await self._reconcile(name)
        else:
            others = {
                "redis stopped": self._stop_redis,
                "delete users": self._delete_users,
                "sessions terminated": self._terminate,
                "postgres crashed": self._crash_postgres,
            }
            await others[name](seconds)

    @contextlib.asynccontextmanager
    async def _noted(
        self,
        name: str,
        kind: Kind,
        *,
        lock: str = "",
        node: int | None = None,
        rollback: bool = False,
        damage: bool = False,
    ) -> AsyncIterator[None]:
        async with self._locks[lock or kind]:
            self._sampler.shaken += rollback or damage
            begin = time.monotonic()
            try:
                yield
            finally:
                self._sampler.shaken += rollback or damage
                fault = Fault(
                    name=name, kind=kind, begin=begin, end=time.monotonic(),
                    node=node, rollback=rollback, damage=damage,
                )  # fmt: skip
                self._faults.append(fault)

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[redis.asyncio.Redis]:
        session = redis.asyncio.Redis.from_url(self._world.settings.redis_url, protocol=2, socket_timeout=5)
        async with contextlib.aclosing(session):
            yield session

    async def _kill_node(self, node: Node, seconds: float) -> None:
        async with self._noted("kill node", "node", lock=f"node{node.number}", node=node.number):
            await self._world.aside(node.kill)
            await asyncio.sleep(seconds / 3)
            await self._world.aside(lambda: node.start(self._world.settings.database_url))
            with contextlib.suppress(TimeoutError):
                # While no store serves reads it cannot become ready.
                async with asyncio.timeout(LOAD_SECONDS):
                    await node.ready()

    async def _kill_redis(self, name: str, seconds: float, *, empty: bool) -> None:
        own = self._world.redis
        async with self._noted(name, "redis", rollback=True):
            if empty:
                await self._world.aside(own.forget)
            else:
                async with self._session() as session:
                    await session.save()
                # What is acknowledged from here on is lost, although Redis answers all the while.
                await asyncio.sleep(seconds)
            await self._world.aside(own.kill)
            await asyncio.sleep(seconds / 3)
            await self._world.aside(own.start)

    async def _stop_node(self, node: Node, seconds: float) -> None:
        async with self._noted("stop node", "node", lock=f"node{node.number}", node=node.number):
            node.send(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            node.send(signal.SIGCONT)

    async def _stop_redis(self, seconds: float) -> None:
        async with self._noted("redis stopped", "redis"):
            with self._world.redis.paused():
                await asyncio.sleep(seconds)

    async def _command(self, name: str) -> None:
        kind: Kind = "work" if name == "script flush" else "redis"
        # All of them while Redis runs: whoever kills it holds the same lock.
        async with self._noted(name, kind, lock="redis", rollback=kind == "redis"), self._session() as session:
            await session.execute_command(*COMMANDS[name])

    async def _harm(self, step: Step) -> None:
        proxies = [each.proxy for each in self._world.nodes if step.node in (None, each.number)]
        latency = 0.03 + 0.4 * self._chance.random()
        async with self._noted(step.name, "redis"):
            for proxy in proxies:
                WAYS[step.name](proxy, latency)
            await asyncio.sleep(step.seconds)
            for proxy in proxies:
                proxy.heal()
                if step.name != "held back":
                    # What hung in a black hole is never answered, and its connection ends. What was held back
                    # arrives after all, long after its sender gave up.
                    proxy.reset()

    async def _crash_postgres(self, seconds: float) -> None:
        async with self._noted("postgres crashed", "postgres"):
            await self._world.aside(self._world.postgres.kill)
            await asyncio.sleep(seconds)
            await self._world.aside(self._world.postgres.start)

    async def _delete_users(self, _: float) -> None:
        async with self._noted("delete users", "redis", rollback=True, damage=True), self._session() as session:
            before = await session.hget("{ladder}:state", "epoch")
            await session.delete("{ladder}:users")
            # The board lies until a tailer finds that it knows fewer users than it shows, and starts it anew.
            deadline = time.monotonic() + LOAD_SECONDS
            with contextlib.suppress(RedisError):
                while await session.hget("{ladder}:state", "epoch") == before and time.monotonic() < deadline:
                    await asyncio.sleep(0.02)

    async def _terminate(self, _: float) -> None:
        async with self._noted("sessions terminated", "postgres"):
            await self._end_sessions()

    async def _end_sessions(self) -> None:
        with contextlib.suppress(psycopg.Error):
            url = self._world.settings.database_url
            async with await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=2) as session:
                await session.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

    async def _reconcile(self, name: str) -> None:
        async with self._noted(name, "work"):
            with contextlib.suppress(*NOT_A_DEFECT):
                async with asyncio.timeout(LOAD_SECONDS):
                    work: Callable[[], Awaitable[object]] = self._catch_up if name == "incremental" else self._pass
                    await work()

    async def _pass(self) -> None:
        await reconcile(self._world.settings, grace_seconds=0.2)

    async def _catch_up(self) -> None:
        client = redis_store.connect_feed(self._world.settings.redis_url)
        async with contextlib.aclosing(client):
            await Tailer(self._world.settings.database_url, Mirror(client)).catch_up()
