"""
Real stores for every test that asks for one: those of DATABASE_URL and REDIS_URL if both are set, else
the embedded pair, started once. Each test gets a database of its own and an empty Redis.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from service.app import opened
from service.embedded import start_pair
from service.ranking.ladder import Ladder
from service.settings import Settings
from service.store import redis as redis_store
from service.store.migrate import migrate
from service.store.mirror import Mirror
from tests.slow_log import SlowLog, watched

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)
"""Signals that tests send to programs or wait for, and that the parent of the suite may have it ignore."""

pytest_plugins = ["tests.parallel"]

PERMANENT_KEYS = {b"{ladder}:board", b"{ladder}:users", b"{ladder}:state"}


def pytest_configure() -> None:
    """
    Give every program that a test starts the default action of signals, whatever the suite itself was started with.

    A shell has its background jobs ignore SIGINT, and nohup SIGHUP; a child inherits that, but not a handler. So the
    suite goes on ignoring what it was told to ignore, by a handler that does nothing.
    """
    for number in ENDING:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


class Stores:
    """The two servers of a test run, and a migrated template that each test's database is cloned from."""

    def __init__(self, database_url: str, redis_url: str, slow_log: SlowLog) -> None:
        self.database_url = database_url
        self.redis_url = redis_url
        self._slow_log = slow_log
        self.template = self.create()
        migrate(self.url(self.template))

    def url(self, name: str) -> str:
        """The URL of another database of the same server."""
        parts = conninfo_to_dict(self.database_url)
        host, user = str(parts.pop("host", "")), str(parts.pop("user", ""))
        secret = f":{parts.pop('password')}" if "password" in parts else ""
        return f"postgresql://{user}{secret}@/{name}?host={host.replace('/', '%2F')}&port={parts.get('port', 5432)}"

    def admin(self, statement: sql.Composed) -> None:
        """Run a statement outside the tests' databases."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(statement)

    def create(self, template: str = "template1") -> str:
        """Create a database; returns its name."""
        name = f"ladder_test_{secrets.token_hex(6)}"
        self.admin(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop(self, name: str) -> None:
        """Drop a database, with whoever is still connected to it."""
        self.admin(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextlib.contextmanager
    def empty_redis(self) -> Iterator[None]:
        """
        Empty Redis after the block.

        Nothing but the board's keys may be without a time to live then, and no call of the product's may have been slow.
        """
        with redis.Redis.from_url(self.redis_url) as client:
            try:
                yield
                forever = {key for key in client.scan_iter(count=1000) if client.ttl(key) == -1} - PERMANENT_KEYS
                slow = self._slow_log.slow()
            finally:
                client.flushdb()

        assert set() == forever
        assert [] == slow


@pytest.fixture(scope="session")
def stores() -> Iterator[Stores]:
    """The two servers of the run."""
    with contextlib.ExitStack() as stack:
        database_url, redis_url = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
        if not (database_url and redis_url):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ladder-test-")))
            pair = stack.enter_context(start_pair(folder / "data"))
            database_url, redis_url = pair.database_url, pair.redis_url
        with redis.Redis.from_url(redis_url) as client:
            if client.dbsize():
                pytest.exit("REDIS_URL names a database that is not empty, and the tests would flush it", returncode=2)
            with watched(client) as slow_log:
                running = Stores(database_url, redis_url, slow_log)
                yield running
                running.drop(running.template)


@pytest.fixture
def database_url(stores: Stores) -> Iterator[str]:
    """A database of the test's own, with the schema and no users."""
    name = stores.create(stores.template)
    yield stores.url(name)
    stores.drop(name)


@pytest.fixture
def redis_url(stores: Stores) -> Iterator[str]:
    """A Redis that is empty, and in which no key but the board's may be left without a time to live."""
    with stores.empty_redis():
        yield stores.redis_url


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Settings over the test's own stores."""
    return Settings(database_url=database_url, redis_url=redis_url, workers=1)


@pytest.fixture
async def mirror(redis_url: str) -> AsyncIterator[Mirror]:
    """The board, over a client with the tailer's patience: a test does not mean to time out."""
    client = redis_store.connect_feed(redis_url)
    yield Mirror(client)
    await client.aclose()


@pytest.fixture
async def ladder(settings: Settings) -> AsyncIterator[Ladder]:
    """The product over the test's own stores, its tailer running."""
    async with opened(settings) as running:
        yield running
