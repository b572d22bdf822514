"""The address of Redis leads to another server, while connections to the previous one stay open; no process is restarted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import msgspec
import pytest
from structlog.testing import capture_logs

from service.app import opened
from service.errors import LadderError
from service.model import NewUser, UserId
from service.ranking import tail
from service.ranking.ladder import Ladder
from service.settings import Settings
from service.store import redis as redis_store
from service.store.buckets import Buckets
from tests.ranking.equality import assert_mirror_equals_ledger, ready
from tests.servers.own_haproxy import own_haproxy
from tests.servers.redis_pair import Pair, redis_pair, way_to

from .readers import served_by_redis, until

USERS = [UserId(f"user{number}") for number in range(20)]
HEALED_SECONDS = 5.0
"""Some one or two; the rest is for a busy machine."""
AT_ONCE = 6
REFUSED = 25
"""Writes in a row, more than have a circuit breaker open."""


@contextlib.asynccontextmanager
async def switchable(pair: Pair, way: str) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """An address that leads to the first of both, and what leads new connections to the second."""
    if way == "haproxy":
        with own_haproxy(pair.first_port, pair.second_port) as haproxy:
            yield haproxy.url, haproxy.lead_to_second
        return
    async with way_to(pair) as (proxy, url):

        def lead_to_second() -> None:
            proxy.upstream = ("127.0.0.1", pair.second_port)

        yield url, lead_to_second


class Client:
    """Reads, and writes if it should, as many requests at once as need several connections."""

    def __init__(self, ladder: Ladder, users: list[UserId], *, writes: bool = True) -> None:
        self._ladder, self._users, self._writes = ladder, users, writes
        self._rating = 1000

    async def is_well(self) -> bool:
        """Whether both stores have their part in every answer."""
        reads = [*map(self._ranked, self._users), *map(self._paged, range(AT_ONCE))]
        outcome = await self.write() if self._writes else "applied"
        return {("redis", False)} == set(await asyncio.gather(*reads)) and outcome == "applied"

    @property
    def breaker(self) -> str:
        """Whether Redis is asked at all."""
        return self._ladder.breaker

    async def write(self) -> str:
        """Rate a user; what became of it in Redis."""
        self._rating += 1
        return (await self._ladder.rate(self._users[0], self._rating)).placed.outcome

    async def _ranked(self, user_id: UserId) -> tuple[str, bool]:
        answer = await self._ladder.standings.rank(user_id)
        return answer.source, answer.stale

    async def _paged(self, offset: int) -> tuple[str, bool]:
        answer, _ = await self._ladder.page(limit=10, offset=offset)
        return answer.source, answer.stale


@contextlib.asynccontextmanager
async def served(settings: Settings, url: str, pair: Pair) -> AsyncIterator[list[Client]]:
    """Clients of a process that feeds, of one that stands by, and of one that only reads; all are well."""
    own = msgspec.structs.replace(settings, redis_url=url)
    async with opened(own) as feeding, opened(own) as standing_by, opened(own) as only_reading:
        for number, user_id in enumerate(USERS):
            await feeding.create(NewUser(user_id, f"player-{user_id}", 1000 + number))
        clients = [Client(feeding, USERS[:10]), Client(standing_by, USERS[10:])]
        clients.append(Client(only_reading, USERS, writes=False))
        for client in clients:
            await until(client.is_well)
        await until(lambda: asyncio.to_thread(pair.has_caught_up))
        yield clients


async def healed(clients: list[Client], pair: Pair, *, begun: float) -> None:
    """Return once the second server is fed and every client is well, and was in time."""
    for client in clients:
        await until(client.is_well)
    await until(lambda: asyncio.to_thread(pair.second_has_stamped))
    assert time.monotonic() - begun < HEALED_SECONDS
    for client in clients:
        await until(client.is_well)


@pytest.mark.parametrize(("way", "examined"), [("proxy", 30.0), ("proxy", 0.1), ("haproxy", 30.0)])
async def test_a_switch_that_connections_survive_heals_within_seconds(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, way: str, examined: float
) -> None:
    """
    Ranks come from Redis and writes are `applied` in every process, and the new master is fed.

    The old master is a replica by then, and all connections still lead to it. However often its settings are examined
    over these, the new master is not withheld.
    """
    monkeypatch.setattr(tail, "EXAMINE_SECONDS", examined)
    with redis_pair() as pair, capture_logs() as logs:
        async with switchable(pair, way) as (url, lead_to_second), served(settings, url, pair) as clients:
            await asyncio.to_thread(pair.promote_second)
            lead_to_second()
            await asyncio.to_thread(pair.demote_first)
            await healed(clients, pair, begun=time.monotonic())
        await assert_mirror_equals_ledger(msgspec.structs.replace(settings, redis_url=pair.second.url))

    assert [] == [entry for entry in logs if entry["event"] == "mirror.withheld"]


@pytest.mark.parametrize("examined", [30.0, 0.1])
async def test_a_switch_that_comes_after_the_demotion_heals_as_fast(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, examined: float
) -> None:
    """The refusals of the replica in between do not open the circuit breaker, which would delay the recovery."""
    monkeypatch.setattr(tail, "EXAMINE_SECONDS", examined)
    with redis_pair() as pair:
        async with switchable(pair, "proxy") as (url, lead_to_second), served(settings, url, pair) as clients:
            await asyncio.to_thread(pair.promote_second)
            await asyncio.to_thread(pair.demote_first)
            for client in clients[:2]:
                for _ in range(REFUSED):
                    assert "pending" == await client.write()
                assert "closed" == client.breaker
            lead_to_second()
            await healed(clients, pair, begun=time.monotonic())
        await assert_mirror_equals_ledger(msgspec.structs.replace(settings, redis_url=pair.second.url))


async def test_the_rate_limit_follows_a_switch(redis_url: str) -> None:
    """Its calls are all writes: the first that a replica refuses is the last."""
    assert redis_url
    with redis_pair() as pair:
        async with switchable(pair, "proxy") as (url, lead_to_second):
            buckets = Buckets(redis_store.connect(url, connections=4), rate=10, burst=20)
            await buckets.take({"client": 1})
            await asyncio.to_thread(pair.promote_second)
            lead_to_second()
            await asyncio.to_thread(pair.demote_first)
            with pytest.raises(LadderError, match="a replica now"):
                await buckets.take({"client": 1})

            assert 2 == (await buckets.take({"client": 2}))["client"].given
            await buckets.close()


async def test_a_replica_is_refused_by_the_address_of_its_master(settings: Settings) -> None:
    """When the address leads nowhere else: then an operator has to do something, and is told what."""
    with redis_pair() as pair, capture_logs() as logs:
        own = msgspec.structs.replace(settings, redis_url=pair.first.url)
        async with opened(own) as ladder:
            await ready(ladder)
            await until(lambda: served_by_redis(ladder))
        async with opened(msgspec.structs.replace(settings, redis_url=pair.second.url)) as ladder:
            await until(lambda: _told(logs))
            assert not await served_by_redis(ladder)

    (reason,) = [str(entry["reason"]) for entry in logs if entry["event"] == "mirror.withheld"]
    assert f"a replica of 127.0.0.1:{pair.first_port}" in reason


async def _told(logs: Sequence[Mapping[str, object]]) -> bool:
    return any(entry["event"] == "mirror.withheld" for entry in logs)
