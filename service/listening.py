"""Whether an address can be listened on, asked before anything is started."""

from __future__ import annotations

import errno
import socket


def refusal(host: str, port: int) -> str | None:
    """
    Return a sentence that says why not, None if it can be.

    The server's own sockets share their port with each other, and would with another service's too:
    every second request would go astray, so a port that is in use is found out before.
    """
    where = f"Port {port} on {host}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, _, _, address in found:
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            return f"{where} is in use: choose another one."
        return f"{where} cannot be listened on: {getattr(error, 'strerror', None) or error}."
    return None
