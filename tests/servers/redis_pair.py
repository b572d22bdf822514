"""A Redis with a replica, which may be promoted, and the way to them, which may be led from one to the other."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.api.serving import free_port, wait_until

from .own_redis import OwnRedis, own_redis
from .proxy import Proxy
from .shifted_clock import shifted


class Pair:
    """A master and a replica that has caught up with it at first; both listen on a port and on a socket."""

    def __init__(self, first: OwnRedis, second: OwnRedis, ports: tuple[int, int]) -> None:
        self.first, self.second = first, second
        self.first_port, self.second_port = ports

    def promote_second(self) -> None:
        """End the replication: the second is a master of its own, with what it has by now."""
        self.second.command("REPLICAOF", "NO", "ONE")

    def demote_first(self) -> None:
        """Have the first follow the second; those who are connected to it stay so."""
        self.first.command("REPLICAOF", "127.0.0.1", self.second_port)
        wait_until(lambda: self.first.command("INFO", "replication")["master_link_status"] == "up")

    def second_has_stamped(self) -> bool:
        """Whether the second's own clock tells how far the board lags."""
        run: bytes | None = self.second.command("HGET", "{ladder}:state", "run")
        own: str = self.second.command("INFO", "server")["run_id"]
        return run == own.encode()

    def has_caught_up(self) -> bool:
        """Whether the second holds a board that may be read, and the last batch that the first has taken."""
        state = "{ladder}:state"
        held: bytes | None = self.second.command("HGET", state, "tok")
        is_ready: bool = self.second.command("HGET", state, "ready") == b"1"
        return is_ready and held == self.first.command("HGET", state, "tok")


@contextlib.contextmanager
def redis_pair(*, shift_seconds: int = 0) -> Iterator[Pair]:
    """Two servers; the second's clock is `shift_seconds` ahead of the first's. Skips where that cannot be had."""
    with own_redis() as first, own_redis() as second, tempfile.TemporaryDirectory(prefix="ladder-clock-") as folder:
        ports = (free_port(), free_port())
        first.start(port=ports[0])
        env = shifted(shift_seconds, Path(folder)) if shift_seconds else None
        second.start(port=ports[1], env=env, replicaof=f"127.0.0.1 {ports[0]}")
        ahead = int(second.command("TIME")[0]) - int(first.command("TIME")[0])
        if abs(ahead - shift_seconds) > 1:
            pytest.skip("this server takes the time from elsewhere")
        yield Pair(first, second, ports)


@contextlib.asynccontextmanager
async def way_to(pair: Pair) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy that leads to the first, and the URL of the proxy."""
    async with Proxy(("127.0.0.1", pair.first_port)) as proxy:
        yield proxy, f"redis://127.0.0.1:{proxy.port}/0"
