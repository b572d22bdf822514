"""A TCP door before Postgres, which a test can shut, or leave ajar so that nothing comes through any more."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from .serving import free_port


class Door:
    """Forwards every connection to the server of a database's URL, while it is open."""

    def __init__(self, database_url: str) -> None:
        parts = conninfo_to_dict(database_url)
        host, port = str(parts.get("host", "")), int(str(parts.get("port", 5432)))
        self._upstream: str | tuple[str, int] = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
        self._port = free_port()
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self._flows = threading.Event()
        self._flows.set()
        user = quote(str(parts["user"]), safe="")
        secret = f":{quote(str(parts['password']), safe='')}" if "password" in parts else ""
        plain = "sslmode=disable&gssencmode=disable"
        self.url = f"postgresql://{user}{secret}@127.0.0.1:{self._port}/{parts['dbname']}?{plain}"

    def open(self) -> None:
        """Let connections in."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Let connections in for the block, and nothing through them: as when the server's host is stuck."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    def shut(self) -> None:
        """Cut every connection and refuse new ones."""
        if self._listener:
            # Closing alone would leave the thread that accepts, and the port with it.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                inside, _ = listener.accept()
                threading.Thread(target=self._serve, args=[inside], daemon=True).start()

    def _serve(self, inside: socket.socket) -> None:
        unix = isinstance(self._upstream, str)
        outside = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        with inside, outside, contextlib.suppress(OSError):
            outside.connect(self._upstream)
            self._connections |= {inside, outside}
            back = threading.Thread(target=self._pump, args=[outside, inside], daemon=True)
            back.start()
            self._pump(inside, outside)
            back.join()
        self._connections -= {inside, outside}

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def door_to(database_url: str) -> Iterator[Door]:
    """A door that is open at first and shut in the end."""
    door = Door(database_url)
    door.open()
    try:
        yield door
    finally:
        door.shut()
