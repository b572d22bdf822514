"""The embedded Valkey: an append-only file, and never a key evicted."""

from __future__ import annotations

import contextlib
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from service.embedded.programs import Programs
from service.embedded.server import Place, Server, started

if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKET = "valkey.sock"


@contextlib.contextmanager
def running(programs: Programs, place: Place) -> Iterator[Server]:
    """Start Valkey over its append-only file and stop it at the end."""
    listen = place.sockets / SOCKET
    settings = {
        "port": "0",
        "unixsocket": str(listen),
        "unixsocketperm": "700",
        "dir": str(place.make_own_directory("valkey")),
        "daemonize": "no",
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "stop-writes-on-bgsave-error": "no",
        "lazyfree-lazy-server-del": "yes",
    }
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    command = [str(programs.valkey), *options]

    with started("Valkey", command, place, signal.SIGTERM, lambda: answers(listen)) as server:
        yield server


def answers(listen: Path) -> bool:
    """Whether a Valkey or Redis on this socket has loaded its data and takes commands."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        client.connect(str(listen))
        client.sendall(b"PING\r\n")
        return client.recv(16).startswith(b"+PONG")
    return False
