"""Where the service listens: whether it can be done, asked before anything is started, and the socket for `localhost`."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from typing import Any, NamedTuple

LOCALHOST = "localhost"
"""Listens on both 127.0.0.1 and ::1, as clients try either first."""
_LOOPBACK = "127.0.0.1"
_BROADCAST = ipaddress.ip_address("255.255.255.255")
_LOOPBACK_DEVICE = b"lo"


class _Address(NamedTuple):
    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]


def refusal(host: str, port: int) -> str | None:
    """
    Return a sentence that says why not, None if it can be.

    The server's own sockets share their port with each other, and would with another service's too:
    every second request would go astray, so a port that is in use is found out before.
    """
    where = f"Port {port} on {host}"
    try:
        if host == LOCALHOST and (both := _on_both_families(port, is_shared=False)):
            both.close()
            return None
        found = _resolved(host, port)
        if len(found) > 1:
            addresses = ", ".join(str(address.sockaddr[0]) for address in found)
            return f"HOST is {host}, which has several addresses ({addresses}): name one of them."
        for address in found:
            numeric = ipaddress.ip_address(str(address.sockaddr[0]).partition("%")[0])
            # The system lets them be listened on, and no connection ever arrives.
            if numeric.is_multicast or numeric == _BROADCAST:
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))  # noqa: TRY301  as bind does
            with socket.socket(address.family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # Of both families if it is all addresses of IPv6, just as the server's.
                probe.bind(address.sockaddr)
    except UnicodeError:
        return f"{where} cannot be listened on: the parts of a name between its dots have 1 to 63 characters."
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"{where} is in use: choose another one."
        return f"{where} cannot be listened on: {error.strerror or error}."
    return None


def address(host: str, port: int) -> str:
    """Return the one numeric address of a host; raises OSError when its name cannot be resolved any more."""
    return str(_resolved(host, port)[0].sockaddr[0])


def for_workers(workers: int, host: str, port: int) -> list[socket.socket]:
    """
    Return a bound socket for each worker, which shares its port with the others'; none where the server makes its own.

    That is for every host but localhost. Raises OSError when the port is in use.
    """
    if host != LOCALHOST:
        return []
    found = (_on_both_families(port, is_shared=True) for _ in range(workers))
    return [each for each in found if each]


def _on_both_families(port: int, *, is_shared: bool) -> socket.socket | None:
    """
    Return a bound socket that takes connections to 127.0.0.1 and ::1, and none from another machine.

    A worker takes one socket, so it is one of both families for all addresses, tied to the loopback device. Returns
    None where the system has no IPv6 or does not let us do that; raises OSError when the port is in use.
    """
    if not hasattr(socket, "SO_BINDTODEVICE"):
        return None
    try:
        both = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        both.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        both.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, is_shared)
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Before it is bound: for a moment it would take connections from everywhere.
        both.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _LOOPBACK_DEVICE)
        both.bind(("::", port))
    except OSError as error:
        both.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise
        return None
    return both


def _resolved(host: str, port: int) -> list[_Address]:
    if host == LOCALHOST:
        return [_Address(socket.AF_INET, (_LOOPBACK, port))]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(_Address(family, sockaddr) for family, _, _, _, sockaddr in found))
