"""The machines of a run: a Postgres, a Redis, and API processes, each with its own way to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import httpx
import psycopg

from service.embedded.programs import choose_account
from service.parent_death import spawn
from service.settings import Settings
from service.store.migrate import migrate
from tests.api.serving import ROOT, free_port
from tests.servers.own_postgres import OwnPostgres, programs
from tests.servers.own_redis import OwnRedis
from tests.servers.proxy import Proxy

T = TypeVar("T")

AUDIT = """
CREATE TABLE audit (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL, version bigint NOT NULL, rating integer, username text NOT NULL,
    clock double precision NOT NULL, xact xid8 NOT NULL
);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO audit (id, version, rating, username, clock, xact)
        SELECT OLD.id, version, NULL, OLD.username, extract(epoch FROM clock_timestamp()), pg_current_xact_id()
        FROM user_tombstones WHERE id = OLD.id;
    ELSE
        INSERT INTO audit (id, version, rating, username, clock, xact)
        VALUES (NEW.id, NEW.version, NEW.rating, NEW.username, extract(epoch FROM clock_timestamp()),
                pg_current_xact_id());
    END IF;
    RETURN NULL;
END $$;
-- By its name the last of them: the tombstone is there, and the version is stamped.
CREATE TRIGGER zz_audit AFTER INSERT OR UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION audit();
"""


class Node:
    """An API process on a port of its own, that may be killed and started again."""

    def __init__(self, number: int, folder: Path, proxy: Proxy) -> None:
        self.number = number
        self.proxy = proxy
        self.port = free_port()
        self.born = 0
        self.log = folder / f"node{number}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, database_url: str) -> None:
        """Start it; it is not ready yet."""
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": database_url,
            "REDIS_URL": f"redis://127.0.0.1:{self.proxy.port}/0",
            "PORT": str(self.port),
            "WORKERS": "1",
            "RATE_LIMIT_PER_SECOND": "0",
        }
        with self.log.open("ab") as log:
            command = [sys.executable, "-P", "-m", "service"]
            self._process = spawn(command, death_signal=signal.SIGTERM, env=environment, cwd="/", output=log)
        self.born += 1

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it and to its workers."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End it as a power cut does."""
        self.send(signal.SIGKILL)
        if self._process:
            self._process.wait()

    async def ready(self) -> None:
        """Return when it says that it serves."""
        async with httpx.AsyncClient(trust_env=False, timeout=1) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"http://127.0.0.1:{self.port}/health/ready")).status_code == 200:
                        return
                await asyncio.sleep(0.02)


class World:
    """
    Everything that runs.

    Programs are started in one thread that lives as long as the world: they would end with it.
    """

    def __init__(self, folder: Path) -> None:
        self._thread = ThreadPoolExecutor(1)
        found = programs()
        self.postgres = OwnPostgres(folder / "postgres", found, choose_account(folder, found))
        (folder / "redis").mkdir()
        self.redis = OwnRedis(folder / "redis")
        self.settings = Settings(database_url=self.postgres.url, redis_url=self.redis.url, workers=1)
        self.folder = folder
        self.nodes: list[Node] = []

    async def aside(self, work: Callable[[], T]) -> T:
        """Run blocking work in the world's thread, one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def prepare(self, users: int) -> None:
        """Make the database, its audit and some users."""
        self.postgres.make()
        self.postgres.start()
        migrate(self.settings.database_url)
        with psycopg.connect(self.settings.database_url) as connection:
            connection.execute(AUDIT)
            connection.execute(
                "INSERT INTO users (id, username, rating)"
                " SELECT 'u' || n, 'first-' || n, 1400 + n %% 7 FROM generate_series(1, %s) n",
                [users],
            )

    def end(self) -> None:
        """Stop everything that still runs."""
        for node in self.nodes:
            node.kill()
        self.redis.kill()
        self.postgres.kill()


@contextlib.asynccontextmanager
async def world(*, nodes: int, users: int) -> AsyncIterator[World]:
    """A world that is ready, and gone in the end."""
    with _folder() as folder:
        made = World(folder)
        try:
            async with contextlib.AsyncExitStack() as stack:
                await made.aside(lambda: made.prepare(users))
                await made.aside(made.redis.start)
                for number in range(nodes):
                    proxy = await stack.enter_async_context(Proxy(str(folder / "redis" / "socket")))
                    made.nodes.append(Node(number, folder, proxy))
                for node in made.nodes:
                    await made.aside(lambda node=node: node.start(made.settings.database_url))  # type: ignore[misc]
                async with asyncio.timeout(60):
                    await asyncio.gather(*(node.ready() for node in made.nodes))
                yield made
        finally:
            await made.aside(made.end)
            made._thread.shutdown()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    # The system's temporary directory: the name of a socket must be short. Others' servers must get through to theirs.
    with tempfile.TemporaryDirectory(prefix="ladder-nemesis-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def wall_to_monotonic() -> float:
    """Return what must be added to a time of day to get this process's clock."""
    return min((time.monotonic() - time.time() for _ in range(5)), key=abs)
