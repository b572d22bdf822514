"""A proxy between the service and a store, in an event loop, that does to a connection what networks do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict
from redis.asyncio.connection import parse_url

from .background import Background, background


class Proxy:
    """
    Forwards TCP connections to one server, well or badly; every fault holds until `heal`.

    `latency` delays each answer by seconds. `lose_requests` and `lose_replies` are black holes: whoever
    sent gets no error and no answer. `pause` holds everything back, and `heal` lets it through, however
    late, and whether or not its sender still waits. `refuse` resets what is open and what comes. New connections
    lead to `upstream`.
    """

    def __init__(self, upstream: str | tuple[str, int]) -> None:
        self.upstream = upstream
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.latency = 0.0
        self.lose_requests = self.lose_replies = self.refusing = False
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        self.heal()
        self.reset()

    def pause(self) -> None:
        """Hold back what is sent from now on, in both directions."""
        self._flows.clear()

    def refuse(self) -> None:
        """Reset every connection, and each new one as soon as it is made."""
        self.refusing = True
        self.reset()

    def lead_to(self, upstream: str | tuple[str, int]) -> None:
        """Forward to another server from now on, and end what is open to this one."""
        self.upstream = upstream
        self.reset()

    def reset(self) -> None:
        """Reset every connection; new ones are welcome."""
        for writer in list(self._writers):
            line = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def heal(self) -> None:
        """Forward everything again, what was held back first."""
        self.latency = 0.0
        self.lose_requests = self.lose_replies = self.refusing = False
        self._flows.set()

    async def _serve(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self._writers.add(client)
        try:
            if self.refusing:
                self.reset()
                return
            server_reader, server = await self._connect()
            self._writers.add(server)
            try:
                await asyncio.gather(self._pump(client_reader, server), self._pump(server_reader, client, replies=True))
            finally:
                self._writers.discard(server)
                server.close()
        except OSError:
            pass
        finally:
            self._writers.discard(client)
            client.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.upstream, str):
            return await asyncio.open_unix_connection(self.upstream)
        return await asyncio.open_connection(*self.upstream)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                if self.lose_replies if replies else self.lose_requests:
                    continue
                if replies and self.latency:
                    await asyncio.sleep(self.latency)
                writer.write(data)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def before_redis(url: str, kind: type[Proxy] = Proxy) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the Redis of a URL, and the URL of the proxy."""
    parts: dict[str, Any] = dict(parse_url(url))
    upstream = parts["path"] if "path" in parts else (parts.get("host", "localhost"), parts.get("port", 6379))
    secret = f"{parts.get('username', '')}:{parts['password']}@" if "password" in parts else ""
    async with kind(upstream) as proxy:
        yield proxy, f"redis://{secret}127.0.0.1:{proxy.port}/{parts.get('db', 0)}"


@contextlib.asynccontextmanager
async def before_postgres(url: str, kind: type[Proxy] = Proxy) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the Postgres of a URL, and the URL of the proxy."""
    parts = conninfo_to_dict(url)
    host, port = str(parts.get("host", "localhost")), int(str(parts.get("port", 5432)))
    user = quote(str(parts["user"]), safe="")
    secret = f":{quote(str(parts['password']), safe='')}" if "password" in parts else ""
    async with kind(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)) as proxy:
        address = f"127.0.0.1:{proxy.port}/{parts['dbname']}?sslmode=disable&gssencmode=disable"
        yield proxy, f"postgresql://{user}{secret}@{address}"


class Door:
    """The only way to Postgres, for a test that has no event loop. `url` leads through it."""

    def __init__(self, loop: Background, proxy: Proxy, url: str) -> None:
        self._loop, self._proxy, self.url = loop, proxy, url

    def open(self) -> None:
        """Let connections in."""
        self._loop.call(self._proxy.heal)

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Let connections in for the block, and nothing through them: as when the server's host is stuck."""
        self._loop.call(self._proxy.pause)
        try:
            yield
        finally:
            self.open()

    def shut(self) -> None:
        """Cut every connection and let none in."""
        self._loop.call(self._proxy.refuse)


@contextlib.contextmanager
def door_to(database_url: str) -> Iterator[Door]:
    """A door that is open at first."""
    with background() as loop, loop.entered(before_postgres(database_url)) as (proxy, url):
        yield Door(loop, proxy, url)
