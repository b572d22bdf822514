"""
Who is asking: the address that a request counts against.

The peer's own, unless the peer is a proxy that we trust; then the right-most entry of X-Forwarded-For that
no such proxy wrote. What stands left of it was written by the client, who may write anything there.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.api.asgi import Scope
    from service.settings import Network

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_CLIENT_PREFIX_V6 = 64
"""Bits of an IPv6 address that one client is given; within them it may use every address."""


class ClientAddresses:
    """Names the client of a request; `trusted` are the networks of the proxies whose word is taken."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)
        self._of_peer = lru_cache(4096)(self._name)

    def __call__(self, scope: Scope) -> str:
        """Return the name of the client behind a request: an IPv4 address, an IPv6 /64, or the socket it came by."""
        peer = scope.get("client")
        text = peer[0] if peer else ""
        if self._trusted and (address := _parsed(text)) and self._trusts(address):
            lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
            if lines:
                return _named(self._behind(address, b",".join(lines).decode("latin-1").split(",")))
        return self._of_peer(text)

    def is_proxy(self, scope: Scope) -> bool:
        """Whether the peer of a request is a proxy whose word is taken."""
        peer = scope.get("client")
        address = _parsed(peer[0]) if self._trusted and peer else None
        return address is not None and self._trusts(address)

    def _behind(self, proxy: Address, chain: Sequence[str]) -> Address:
        nearest = proxy
        # A list may have empty elements, which say nothing (RFC 9110 section 5.6.1).
        for text in filter(None, map(str.strip, reversed(chain))):
            address = _parsed(text)
            # No address that could be counted against: it counts against whoever wrote it.
            if address is None:
                return nearest
            nearest = address
            if not self._trusts(address):
                return nearest
        return nearest

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    @staticmethod
    def _name(text: str) -> str:
        address = _parsed(text)
        return _named(address) if address else "local"


def _parsed(text: str) -> Address | None:
    # Some proxies write the port too: 192.0.2.1:4711, [2001:db8::1]:4711.
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _named(address: Address) -> str:
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, _CLIENT_PREFIX_V6), strict=False))
