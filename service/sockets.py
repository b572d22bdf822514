"""The connections of this process, which its server keeps to itself: found among the open files."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

Peer = tuple[str, int]
"""The other end of a connection over TCP: address and port, as ASGI names a client."""


def hang_up(peers: Collection[Peer]) -> int:
    """
    Break off the connections to these peers, and return how many there were. O(open files), some microseconds each.

    For clients that do not read: a server that waits for them to take what was written to them waits for ever, and
    ASGI has no word for giving up.
    """
    found = 0
    for connection in _open():
        # Neither one that listens, nor one that has ended by itself, has a peer.
        with suppress(OSError):
            if connection.getpeername()[:2] in peers:
                connection.shutdown(socket.SHUT_RDWR)
                found += 1
    return found


def limit_unsent(amount: int) -> None:
    """
    Let the kernel take no more than `amount` bytes from us that it cannot send yet; for connections accepted from now on.

    Else it takes megabytes for a client that does not read, and who writes to them learns of it only then.
    """
    for connection in _open():
        with suppress(OSError):
            if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, amount)


def _open() -> Iterator[socket.socket]:
    """Yield every socket over TCP, by a handle of our own: the number may be another file's at any moment."""
    try:
        numbers = [int(file.name) for file in Path("/dev/fd").iterdir()]
    except OSError:
        # As many files are open as there may be.
        return
    for number in numbers:
        with suppress(OSError):
            handle = os.dup(number)
            try:
                connection = socket.socket(fileno=handle)
            except OSError:
                os.close(handle)
                continue
            with connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
                    yield connection
