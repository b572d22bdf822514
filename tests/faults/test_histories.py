"""Postgres goes backwards, or is not the one it should be: nobody is shown what was lost, and every row is equal after."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import psycopg
import pytest
import redis
from structlog.testing import capture_logs

from service.app import opened
from service.errors import OutcomeUnknown, PreconditionFailed, Unavailable
from service.model import NewUser, UserId, Version
from service.ranking.answers import Demand
from service.ranking.ladder import Ladder
from service.ranking.writing import Written
from service.settings import Settings
from service.store.feed import Feed
from service.store.migrate import DIRECTORY, migrate
from tests.conftest import Stores
from tests.ranking.equality import assert_mirror_equals_ledger, ready
from tests.ranking.reconciling import Session, everything, insert
from tests.servers.own_postgres import OwnPostgres, own_postgres
from tests.servers.proxy import Proxy, before_postgres

from .readers import ADA, BOB, EVE, assert_seen, populate, served_by_redis, until

LOST_WRITES = 40
"""More than the 32 versions that a promoted standby leaves out by itself."""
JUMP = 10_000_000_000


@pytest.fixture(scope="module")
def origin() -> Iterator[OwnPostgres]:
    """A stopped server with the schema and 200 users: what the servers of these tests are copies of."""
    with own_postgres() as server:
        server.start()
        migrate(server.url)
        with psycopg.connect(server.url, autocommit=True) as session:
            insert(session, 200)
        server.stop()
        yield server


@pytest.fixture
def servers(origin: OwnPostgres) -> Iterator[Callable[[str], OwnPostgres]]:
    """Copies of the origin, by a name of their own; stopped in the end."""
    with contextlib.ExitStack() as stack:

        def copied(name: str) -> OwnPostgres:
            server = origin.copy(name)
            stack.callback(server.remove)
            return server

        yield copied


@pytest.fixture
def primary(servers: Callable[[str], OwnPostgres]) -> OwnPostgres:
    """A running primary."""
    server = servers("primary")
    server.start()
    return server


@pytest.fixture
async def door(primary: OwnPostgres) -> AsyncIterator[tuple[Proxy, str]]:
    """The one address of Postgres, whichever server is behind it."""
    async with before_postgres(primary.url) as made:
        yield made


def switch(door: tuple[Proxy, str], server: OwnPostgres) -> None:
    """Lead everyone to another server."""
    door[0].lead_to(server.socket)


@pytest.fixture
async def service(door: tuple[Proxy, str], redis_url: str) -> AsyncIterator[Ladder]:
    """A service behind the door, its mirror ready and three users more on it."""
    settings = Settings(database_url=door[1], redis_url=redis_url, workers=1)
    async with opened(settings) as running:
        await ready(running)
        await populate(running)
        await until(lambda: served_by_redis(running))
        yield running


class Client:
    """Reads and writes all the time; what it was shown after its first write to the new history is kept."""

    def __init__(self, ladder: Ladder) -> None:
        self._ladder = ladder
        self.first: Written | None = None
        self.seen: list[tuple[str, int, Version]] = []

    async def run(self) -> None:
        """Until cancelled."""
        rating = 2000
        while True:
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                written = await self._ladder.rate(EVE, rating := rating + 1)
                self.first = self.first or written
                assert written.placed.outcome != "superseded"
            for user_id in (ADA, BOB, EVE):
                is_later = self.first is not None
                with contextlib.suppress(Unavailable):
                    answer = await self._ladder.user(user_id)
                    if is_later:
                        self.seen.append((answer.value.user.id, answer.value.user.rating, answer.value.user.version))
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def busy(ladder: Ladder) -> AsyncIterator[Client]:
    """A client at work during the block."""
    client = Client(ladder)
    work = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work


async def lose(service: Ladder) -> dict[str, Written]:
    """Write what nobody will have any more, and have it cached."""
    lost = {}
    for number in range(LOST_WRITES):
        for user_id in (ADA, BOB):
            lost[str(user_id)] = await service.rate(user_id, 3000 + number)
    for user_id in (ADA, BOB):
        assert (await service.user(user_id)).value.user == lost[str(user_id)].user
    return lost


async def assert_nothing_lost_is_shown(service: Ladder, client: Client, lost: dict[str, Written]) -> None:
    """Neither during nor after, nor is a lost version believed."""
    assert client.first is not None
    newest = max(written.user.version for written in lost.values())
    assert client.first.user.version > newest + JUMP // 2
    assert client.seen
    assert not [shown for shown in client.seen if 3000 <= shown[1] < 4000]
    with pytest.raises(PreconditionFailed):
        await service.rate(ADA, 1234, wanted=(lost[ADA].user.version,))
    for user_id in (ADA, BOB):
        shown = await service.user(user_id, demand=Demand(lost[str(user_id)].token))
        assert shown.value.user.rating < 3000


async def test_a_standby_that_lagged_is_promoted(
    service: Ladder,
    door: tuple[Proxy, str],
    primary: OwnPostgres,
    servers: Callable[[str], OwnPostgres],
    redis_url: str,
) -> None:
    """
    Writes that the old primary had acknowledged are gone, and their versions are given out again by hand.

    From its first write to the new primary on, nobody is shown one of them.
    """
    standby = servers("standby")
    standby.follow(primary)
    standby.start()
    await until(lambda: _has(standby, "SELECT count(*) = 203 FROM users"))
    standby.stop()
    lost = await lose(service)
    primary.kill()
    standby.start()
    standby.promote()
    again = lost[BOB].user.version
    while standby.ask("UPDATE users SET rating = 1700 WHERE id = 'bob' RETURNING version") < again:
        pass
    assert standby.ask("SELECT version FROM users WHERE id = 'bob'") == again
    switch(door, standby)
    async with busy(service) as client:
        await until(lambda: _is_on(service, standby, client))

    await assert_nothing_lost_is_shown(service, client, lost)
    await assert_all_is_well(service, Settings(database_url=standby.url, redis_url=redis_url))


@pytest.mark.parametrize("has_trace", [True, False], ids=["new timeline", "no trace"])
async def test_a_backup_is_restored(
    service: Ladder, door: tuple[Proxy, str], primary: OwnPostgres, redis_url: str, *, has_trace: bool
) -> None:
    """The board, and whoever looks at it, comes back to what was saved, even if only the clock of Postgres tells."""
    primary.stop()
    backup = primary.copy("backup")
    primary.start()
    await until(lambda: _writes(service))
    lost = await lose(service)
    await until(lambda: _follows(service, primary))
    primary.kill()
    if has_trace:
        backup.recover()
    try:
        backup.start()
        switch(door, backup)
        if not has_trace:
            # Nobody can know before the horizon was compared with the board's.
            await until(lambda: _is_on(service, backup, None))
        async with busy(service) as client:
            await until(lambda: _is_on(service, backup, client))

        await assert_nothing_lost_is_shown(service, client, lost)
        await assert_all_is_well(service, Settings(database_url=backup.url, redis_url=redis_url))
    finally:
        backup.remove()


async def _follows(service: Ladder, server: OwnPostgres) -> bool:
    """Whether the tail has come to the end of what was committed."""
    horizon = await asyncio.to_thread(server.ask, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
    state = await service.mirror_state()
    return bool(state and state.checkpoint.xact == horizon)


async def _writes(service: Ladder) -> bool:
    try:
        await service.rate(EVE, 1501)
    except OutcomeUnknown:
        return False
    return await served_by_redis(service)


async def _has(server: OwnPostgres, question: str) -> bool:
    return bool(await asyncio.to_thread(server.ask, question))


async def _is_on(service: Ladder, server: OwnPostgres, client: Client | None) -> bool:
    """Whether the mirror is of that server's history, and answers again."""
    name = await asyncio.to_thread(server.ask, "SELECT name FROM history WHERE begins_after > 1000000000")
    state = await service.mirror_state()
    is_done = client is None or (client.first is not None and len(client.seen) > 50)
    return bool(name and state and state.source.endswith(name) and service.trusts(state) and is_done)


async def assert_all_is_well(service: Ladder, settings: Settings) -> None:
    """Writes are applied and read at once, and the board is what Postgres says, row by row."""
    # A put that failed leaves a doubt, which is over when all from before it was applied.
    await until(lambda: _applies(service))
    written = await service.rate(ADA, 1650)
    assert {"redis"} == await assert_seen(service, written, Demand(written.token))
    await assert_mirror_equals_ledger(settings)


async def _applies(service: Ladder) -> bool:
    written = await service.rate(ADA, 1601)
    written = await service.rate(ADA, 1600) if written.previous_rating == 1601 else written
    return written.placed.outcome == "applied" and await served_by_redis(service)


async def test_a_standby_by_mistake(
    primary: OwnPostgres, servers: Callable[[str], OwnPostgres], redis_url: str
) -> None:
    """It answers reads by itself, takes no write, and the board of its primary stays as it is."""
    standby = servers("standby")
    standby.follow(primary)
    standby.start()
    right = Settings(database_url=primary.url, redis_url=redis_url, workers=1)
    async with opened(right) as running:
        await ready(running)
        await populate(running)
        await until(lambda: _has(standby, "SELECT count(*) = 203 FROM users"))
    with redis.Redis.from_url(redis_url) as board:
        before = everything(board)
        with capture_logs() as logs:
            async with opened(msgspec.structs.replace(right, database_url=standby.url)) as mistaken:
                with pytest.raises(Unavailable):
                    await mistaken.rate(ADA, 1600)
                await until(lambda: _logged(logs, "tail.interrupted"))
                assert "postgres" == (await mistaken.user(ADA)).source
                assert "postgres" == (await mistaken.page(limit=10))[0].source
        assert before == everything(board)
    await assert_mirror_equals_ledger(right)


async def _logged(logs: Sequence[Mapping[str, object]], event: str) -> bool:
    return any(entry["event"] == event for entry in logs)


@pytest.fixture
def other(stores: Stores) -> Iterator[str]:
    """Another database of the same server."""
    name = stores.create(stores.template)
    yield stores.url(name)
    stores.drop(name)


async def test_another_database_does_not_wipe_the_board(ladder: Ladder, settings: Settings, other: str) -> None:
    """Whoever is led to the wrong one serves that, and says so once; those who are right notice nothing."""
    await ready(ladder)
    await populate(ladder)
    await until(lambda: served_by_redis(ladder))
    epoch = await _epoch(ladder)
    with capture_logs() as logs:
        async with opened(msgspec.structs.replace(settings, database_url=other)) as mistaken:
            await until(lambda: _logged(logs, "mirror.withheld"))
            written = await mistaken.create(NewUser(UserId("zoe"), "zoe", 1500))
            assert "pending" == written.placed.outcome
            answer, _ = await mistaken.page(limit=10)
            assert ("postgres", 1) == (answer.source, answer.value.board.total)
            (said,) = [entry for entry in logs if entry["event"] == "mirror.withheld"]

    assert "--incremental --force" in str(said["reason"])
    assert epoch == await _epoch(ladder)
    assert await served_by_redis(ladder)
    await assert_mirror_equals_ledger(settings)


async def _epoch(ladder: Ladder) -> str:
    state = await ladder.mirror_state()
    assert state
    return state.epoch


@pytest.fixture
def ledger(database_url: str) -> Iterator[Session]:
    """A session of somebody who writes SQL by hand."""
    with psycopg.connect(database_url, autocommit=True) as session:
        yield session


async def test_a_new_history_is_entered_once(settings: Settings, ledger: Session) -> None:
    """However many notice it at the same time: one name for all, and the versions step over the lost ones once."""
    insert(ledger, 10)
    async with contextlib.AsyncExitStack() as stack:
        feeds = [await stack.enter_async_context(Feed(settings.database_url)) for _ in range(8)]
        first = {await feed.adopt() for feed in feeds}
        assert 11 == ledger.execute("SELECT nextval('users_version_seq')").fetchall()[0][0]
        ledger.execute("UPDATE history SET place = 'another'")
        second = set(await asyncio.gather(*(feed.adopt() for feed in feeds)))

    assert (1, 1) == (len(first), len(second))
    assert first != second
    assert JUMP + 12 == ledger.execute("SELECT nextval('users_version_seq')").fetchall()[0][0]


async def test_a_restored_database_without_a_name_is_a_new_history(stores: Stores, tmp_path: Path) -> None:
    """Users that were there before their history had a name may be those of a backup: their versions are left behind."""
    name = stores.create()
    try:
        with psycopg.connect(stores.url(name), autocommit=True) as session:
            shutil.copy(DIRECTORY / "0001_users.sql", tmp_path)
            migrate(stores.url(name), directory=tmp_path)
            insert(session, 10)
            migrate(stores.url(name))
            async with Feed(stores.url(name)) as feed:
                await feed.adopt()
            assert JUMP + 11 == session.execute("SELECT nextval('users_version_seq')").fetchall()[0][0]
    finally:
        stores.drop(name)
