"""A service of two processes over stores of the tests' own, with 20,000 users: what the tests of failing stores share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import psycopg
import redis

from tests.api.serving import ROOT, Service, serving, wait_until
from tests.ranking.equality import ledger_board, mirror_board
from tests.servers.background import Background, background
from tests.servers.own_postgres import OwnPostgres, own_postgres
from tests.servers.own_redis import OwnRedis, own_redis
from tests.servers.proxy import Proxy, before_redis

from .traffic import Traffic, traffic

USERS = 20_000


class Stage:
    """The service, its stores, and the way between it and Redis. `settings` lead past that."""

    def __init__(self, service: Service, stores: tuple[OwnRedis, OwnPostgres], proxy: Proxy, loop: Background) -> None:
        self.service, self.proxy, self.background = service, proxy, loop
        self.redis, self.postgres = stores
        self.settings = msgspec.structs.replace(service.settings, redis_url=self.redis.url)

    def is_equal(self) -> bool:
        """Whether every row, version and count of the mirror is what SQL says."""
        try:
            board, users, size = mirror_board(self.settings)
            return ledger_board(self.settings) == (board, users) and size == len(board)
        except (redis.RedisError, psycopg.Error):
            return False

    def serves(self) -> bool:
        """Whether both processes answer from the mirror."""
        return all(
            (answer := self.service.get("/leaderboard?limit=1")).headers.get("X-Rank-Source") == "redis"
            and "X-Data-Stale" not in answer.headers
            for _ in range(6)
        )

    def command(self, *words: Any) -> Any:
        """Say something to Redis by hand."""
        with redis.Redis.from_url(self.settings.redis_url) as client:
            return client.execute_command(*words)

    def command_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Say several things at one instant: in between, a count that is wrong would have the board loaded anew."""
        with redis.Redis.from_url(self.settings.redis_url) as client, client.pipeline(transaction=True) as pipe:
            for words in commands:
                pipe.execute_command(*words)
            answers: list[Any] = pipe.execute()
            return answers

    def reconcile(self, *options: str) -> tuple[int, dict[str, Any]]:
        """Run the script as cron does; returns its exit code and report."""
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "DATABASE_URL": self.settings.database_url,
            "REDIS_URL": self.settings.redis_url,
        }
        command = [sys.executable, str(ROOT / "scripts" / "reconcile.py"), "--json", *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout)

    @contextmanager
    def busy(self, *, writing: bool) -> Iterator[Traffic]:
        """Clients that are busy until the end of the block."""
        address = f"http://127.0.0.1:{self.service.settings.port}"
        with traffic(self.background, address, self.settings, writing=writing) as clients:
            yield clients

    def heal(self, seconds: float = 30) -> float:
        """Wait until the board is exact and both processes answer from it; returns how long that took."""
        begun = time.monotonic()
        wait_until(lambda: self.serves() and self.is_equal(), seconds=seconds)
        return time.monotonic() - begun


@contextmanager
def stage(users: int = USERS) -> Iterator[Stage]:
    """Set it up, its board loaded; call it from the main thread."""
    with ExitStack() as stack:
        postgres, server = stack.enter_context(own_postgres()), stack.enter_context(own_redis())
        postgres.start()
        server.start()
        loop = stack.enter_context(background())
        proxy, address = stack.enter_context(loop.entered(before_redis(server.url)))
        service = stack.enter_context(serving(postgres.url, address, workers=2))
        made = Stage(service, (server, postgres), proxy, loop)
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO users (id, username, rating) SELECT 'user' || n, 'name-' || n,"
                " greatest(100, least(5000, 1500 + 350 * sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random())))::int"
                " FROM generate_series(1, %s) n",
                (users,),
            )
        made.heal(600)
        yield made
