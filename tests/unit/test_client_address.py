"""Whom a request counts against, whatever it says about itself."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from service.api.client_address import ClientAddresses

PROXIES = [ip_network("10.0.0.0/8"), ip_network("2001:db8:ffff::/48"), ip_network("192.0.2.77")]


def client(peer: str, *chains: str, trusted: bool = True) -> str:
    """The name of the client behind a peer, with these lines of X-Forwarded-For."""
    scope: dict[str, Any] = {
        "client": (peer, 4711),
        "headers": [(b"x-forwarded-for", chain.encode("latin-1")) for chain in chains],
    }
    return ClientAddresses(PROXIES if trusted else [])(scope)


@pytest.mark.parametrize("trusted", [True, False])
def test_who_comes_directly_is_taken_at_their_address(trusted: bool) -> None:
    """What they claim to forward is their own invention."""
    assert "203.0.113.9" == client("203.0.113.9", trusted=trusted)
    assert "203.0.113.9" == client("203.0.113.9", "198.51.100.1", trusted=trusted)
    assert "203.0.113.9" == client("203.0.113.9", "10.0.0.1", "10.0.0.2, 10.0.0.3", trusted=trusted)


def test_without_trusted_proxies_a_proxy_is_the_client() -> None:
    """Also one whose address is private."""
    assert "10.0.0.1" == client("10.0.0.1", "198.51.100.1", trusted=False)


@pytest.mark.parametrize(
    ("chains", "expected"),
    [
        (["198.51.100.1"], "198.51.100.1"),
        (["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        (["1.1.1.1, 198.51.100.1, 10.0.0.2, 192.0.2.77"], "198.51.100.1"),
        (["1.1.1.1, 10.0.0.9, 198.51.100.1"], "198.51.100.1"),
        (["1.1.1.1", "198.51.100.1", "10.0.0.2"], "198.51.100.1"),
        (["198.51.100.1:55555"], "198.51.100.1"),
        (["[2001:db8::7]:443"], "2001:db8::/64"),
        ([" 198.51.100.1 "], "198.51.100.1"),
        (["10.0.0.5, 10.0.0.6"], "10.0.0.5"),
        (["198.51.100.1, unknown"], "10.0.0.1"),
        (["198.51.100.1, "], "198.51.100.1"),
        (["198.51.100.1", "", " ,, 10.0.0.2,"], "198.51.100.1"),
        (["198.51.100.1, <script>, 10.0.0.2"], "10.0.0.2"),
        (["198.51.100.1, 999.1.1.1"], "10.0.0.1"),
        ([""], "10.0.0.1"),
        (["\xff\xfe"], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
def test_behind_trusted_proxies_the_right_most_stranger_counts(chains: list[str], expected: str) -> None:
    """Every proxy appends whom it saw; what stands left of the stranger, the stranger wrote."""
    assert expected == client("10.0.0.1", *chains)


def test_a_client_with_a_whole_ipv6_network_is_one() -> None:
    """64 bits are what one customer is given."""
    names = {client(f"2001:db8:1:2:{number:x}::1") for number in range(50)}

    assert {"2001:db8:1:2::/64"} == names
    assert "2001:db8:1:3::/64" == client("2001:db8:1:3::1")


def test_a_mapped_address_is_the_one_it_maps() -> None:
    """A socket for both families shows IPv4 clients so; a proxy too is known by either spelling."""
    assert "203.0.113.9" == client("::ffff:203.0.113.9")
    assert "198.51.100.1" == client("::ffff:10.0.0.1", "::ffff:198.51.100.1")
    assert "198.51.100.1" == client("2001:db8:ffff::1", "198.51.100.1")


def test_a_peer_without_an_address_has_a_name() -> None:
    """Who comes by a Unix socket."""
    assert "local" == ClientAddresses([])({"client": None, "headers": []})
    assert "local" == client("")
