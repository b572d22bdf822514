"""
A connection to Redis that knows which server it leads to, and is made anew when that may not be the right one.

A proxy, a DNS name or a Service can lead to another server from one moment to the next, while the connections that were
made before stay with the old one: by then a replica, which takes no writes, or a master that nobody else writes to.
So a connection is replaced when it is old, and at once when an answer raises doubt: all connections of this process to
that address which were made before.
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
"""How long a connection is used, for switches that no answer gives away; up to a fifth shorter, so that not all end at once."""
DOUBT_SECONDS = 1.0
"""How often doubt replaces connections: as long as nothing is mended, the new ones raise it again."""

_RUN = re.compile(rb"^run_id:(\w+)", re.MULTILINE)

_log = structlog.get_logger(__name__)


class Address:
    """What all connections of this process to one URL share: when they were last doubted, and the server they met last."""

    def __init__(self) -> None:
        self.doubted_at = -math.inf
        self.run = ""

    def doubt(self) -> None:
        """Have each connection that was made before now replaced when it is needed next. O(1)."""
        now = time.monotonic()
        if now - self.doubted_at >= DOUBT_SECONDS:
            self.doubted_at = now


_addresses: dict[str, Address] = {}


class ServerConnection(AbstractConnection):
    """What is added to each of redis-py's kinds of connection; `address` belongs to the class that is made of both."""

    address: Address
    run = ""
    """The run_id of the server, "" if it does not tell it."""
    _made_at = _ends_at = -math.inf

    async def connect(self) -> None:
        """Connect if there is no connection, or one that must not be used any more. The pool calls this before each use."""
        now = time.monotonic()
        if self.is_connected and (now >= self._ends_at or self._made_at <= self.address.doubted_at):
            await self.disconnect(nowait=True)
        if not self.is_connected:
            # Before it is made: where the address led a moment later, it may not lead.
            self._made_at = now
            self._ends_at = now + MOST_SECONDS * random.uniform(0.8, 1)  # noqa: S311  nothing secret
        await super().connect()  # type: ignore[no-untyped-call]  # theirs

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Sign in, and learn which server this is: what it answers from now on is its own."""
        await super().on_connect_check_health(check_health)
        await self.send_command("INFO", "server", check_health=False)
        try:
            told = await self.read_response()
        except ResponseError:
            # A managed Redis may forbid it.
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
    """Have a client make such connections; before its first."""
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
    """Have all connections of this process to the client's address replaced: they may lead to the wrong server."""
    kind = client.connection_pool.connection_class
    if issubclass(kind, ServerConnection):
        kind.address.doubt()
