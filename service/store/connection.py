"""
A connection to Redis that knows which server it leads to, and is replaced when that may be the wrong one.

A proxy, a DNS name or a Kubernetes Service can switch to another server at any moment, while existing connections stay
on the old one, which is then a replica that takes no writes, or a master cut off from the other processes.
So a connection is replaced when it reaches a certain age; and when an answer raises doubt about the address, all older
connections of this process to it are replaced.
"""

from __future__ import annotations

import math
import random
import re
import time
from typing import TYPE_CHECKING, Any

import hiredis
import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.store.redis import Client

MOST_SECONDS = 300.0
"""The maximum age of a connection, less up to a fifth at random: the bound for a switch that no answer reveals."""
DOUBT_SECONDS = 1.0
"""The shortest time between two replacements: until the fault is mended, new connections raise doubt again."""

_RUN = re.compile(rb"^run_id:(\w+)", re.MULTILINE)

_log = structlog.get_logger(__name__)


class Address:
    """What all connections of this process to one URL share: the time of the last doubt, and the server seen last."""

    def __init__(self) -> None:
        self.doubted_at = -math.inf
        self.run = ""

    def doubt(self) -> None:
        """Have every connection that exists now replaced before its next use. O(1)."""
        now = time.monotonic()
        if now - self.doubted_at >= DOUBT_SECONDS:
            self.doubted_at = now


_addresses: dict[str, Address] = {}


class ServerConnection(AbstractConnection):
    """
    Mixed into the pool's connection class, whichever transport that is; `address` is set on the resulting class.

    `run` is the run_id of the server, "" if the server does not report it.
    """

    address: Address
    run = ""
    _made_at = _ends_at = -math.inf

    async def connect(self) -> None:
        """Connect, or replace a connection that is too old or in doubt. The pool calls this before each use."""
        now = time.monotonic()
        if self.is_connected and (now >= self._ends_at or self._made_at <= self.address.doubted_at):
            await self.disconnect(nowait=True)
        if not self.is_connected:
            # Taken before connecting: doubt raised while the connection is being made must replace it, too.
            self._made_at = now
            self._ends_at = now + MOST_SECONDS * random.uniform(0.8, 1)  # noqa: S311  nothing secret
        await super().connect()  # type: ignore[no-untyped-call]  # theirs

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Do the handshake, and learn the run_id of the server."""
        await super().on_connect_check_health(check_health)
        await self.send_command("INFO", "server", check_health=False)
        try:
            told = await self.read_response()
        except ResponseError:
            # A managed Redis may forbid INFO.
            told = b""
        found = _RUN.search(told if isinstance(told, bytes) else b"")
        self.run = found[1].decode() if found else ""
        if self.run and self.run != self.address.run:
            if self.address.run:
                _log.info("redis.server_changed", run=self.run, was=self.address.run)
            self.address.run = self.run

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        """Pack a pipeline's arguments in C; redis-py's own loop takes ten times as long."""
        return [hiredis.pack_command(_words(tuple(command))) for command in commands]


def _words(command: tuple[Any, ...]) -> tuple[Any, ...]:
    # redis-py takes a name of two words, "CONFIG GET", for one argument.
    name = command[0]
    return (*name.split(), *command[1:]) if " " in name else command


def prepare(client: Client, url: str) -> None:
    """Make a client open connections of this kind. Call it before the client's first command."""
    pool = client.connection_pool
    pool.connection_class = type(
        "ServerConnection",
        (ServerConnection, pool.connection_class),
        {"address": _addresses.setdefault(url, Address())},
    )


def run_of(connection: AbstractConnection) -> str:
    """Return the run_id of the server that a connection leads to, "" if that is not known."""
    return connection.run if isinstance(connection, ServerConnection) else ""


def doubt(client: Client) -> None:
    """Replace all connections of this process to the client's address: they may lead to the wrong server."""
    kind = client.connection_pool.connection_class
    if issubclass(kind, ServerConnection):
        kind.address.doubt()
