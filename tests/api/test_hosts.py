"""Where the service listens when HOST is a name: on what it stands for, or not at all."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import listening
from tests.api.serving import Service, free_port, serving, wait_until

needs_ipv6 = pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")


@pytest.fixture
def named(database_url: str, redis_url: str) -> Iterator[Service]:
    """The service on localhost, with two workers."""
    with serving(database_url, redis_url, workers=2, env={"HOST": "localhost"}) as running:
        yield running


def status(host: str, port: int) -> int:
    """What is answered at this address."""
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=5)) as connection:
        connection.request("GET", "/leaderboard")
        return connection.getresponse().status


@needs_ipv6
def test_localhost_is_both_families(named: Service) -> None:
    """From every worker; a client is known by its address in the one that it came by."""
    port = named.settings.port

    for _ in range(8):
        assert [200] * 3 == [status(host, port) for host in ("127.0.0.1", "::1", "localhost")]
    assert listening.refusal("127.0.0.1", port) == f"Port {port} on 127.0.0.1 is in use: choose another one."
    assert listening.refusal("localhost", port) == f"Port {port} on localhost is in use: choose another one."


@needs_ipv6
def test_the_workers_of_localhost_share_its_connections(named: Service) -> None:
    """And one that dies leaves no listening socket without a process behind it."""
    port = named.settings.port

    def served(connections: int) -> dict[int, int]:
        """How many of the connections each worker took."""
        with contextlib.ExitStack() as held:
            for number in range(connections):
                host = "::1" if number % 2 else "127.0.0.1"
                client = held.enter_context(contextlib.closing(http.client.HTTPConnection(host, port, timeout=10)))
                client.request("GET", "/health/live")
                assert 200 == client.getresponse().status
            return {worker: accepted(worker, port) for worker in named.workers()}

    assert all(count > 0 for count in served(60).values())
    (killed, _) = named.workers()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: len(named.workers()) == 2 and killed not in named.workers())
    assert all(count > 0 for count in served(60).values())


def accepted(worker: int, port: int) -> int:
    """How many connections to this port a process has."""
    sockets = {link.name for link in Path(f"/proc/{worker}/fd").iterdir() if link.readlink().name.startswith("socket:")}
    inodes = {Path(f"/proc/{worker}/fd/{name}").readlink().name[8:-1] for name in sockets}
    lines = [line.split() for line in Path(f"/proc/{worker}/net/tcp6").read_text().splitlines()[1:]]
    return sum(1 for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "01" and line[9] in inodes)


@needs_ipv6
def test_localhost_is_drained_as_an_address_is(named: Service) -> None:
    """What has begun is answered, and then nothing listens any more."""
    port = named.settings.port
    with contextlib.closing(http.client.HTTPConnection("::1", port, timeout=10)) as begun:
        begun.putrequest("POST", "/users")
        body = b'{"id": "ada", "username": "Ada", "rating": 1500}'
        begun.putheader("Content-Type", "application/json")
        begun.putheader("Content-Length", str(len(body)))
        begun.endheaders(body[:10])
        ended = threading.Thread(target=named.stop)
        ended.start()
        wait_until(lambda: not connects("127.0.0.1", port) and not connects("::1", port))
        begun.send(body[10:])
        assert 201 == begun.getresponse().status
        ended.join()


def connects(host: str, port: int) -> bool:
    """Whether something listens there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


@needs_ipv6
@pytest.mark.parametrize("taken", ["127.0.0.1", "0.0.0.0", "::1"])
def test_a_port_that_is_taken_in_one_family_is_in_use_for_all_addresses(taken: str) -> None:
    """The server listens on both families then."""
    family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    with socket.create_server((taken, 0), family=family) as other:
        port = other.getsockname()[1]

        assert listening.refusal("::", port) == f"Port {port} on :: is in use: choose another one."
        assert listening.refusal("localhost", port) == f"Port {port} on localhost is in use: choose another one."


def test_without_both_families_localhost_is_the_older_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system that has no IPv6, or does not let a socket be tied to a device."""
    monkeypatch.delattr(socket, "SO_BINDTODEVICE", raising=False)

    assert [] == listening.for_workers(2, "localhost", free_port())
    assert listening.refusal("localhost", free_port()) is None
    assert "127.0.0.1" == listening.address("localhost", 1)


def test_a_name_with_several_addresses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one could be listened on, and clients would try the other."""
    found = [
        (family, socket.SOCK_STREAM, 6, "", sockaddr)
        for family, sockaddr in ((socket.AF_INET, ("192.0.2.1", 1)), (socket.AF_INET6, ("2001:db8::1", 1, 0, 0)))
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    assert listening.refusal("host.example", 1) == (
        "HOST is host.example, which has several addresses (192.0.2.1, 2001:db8::1): name one of them."
    )


def test_a_name_is_listened_on_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server takes no names."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.3", 1))] * 2
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    assert "127.0.0.3" == listening.address("host.example", 1)


@pytest.mark.parametrize(
    "host",
    [
        "no-such-host.invalid",
        "192.0.2.1",
        "a" * 64 + ".invalid",
        "a..invalid",
        "224.0.0.1",
        "255.255.255.255",
        "ff02::1",
    ],
)
def test_what_is_no_address_of_this_machine_is_refused(host: str) -> None:
    """In a sentence."""
    sentence = listening.refusal(host, free_port())

    assert sentence is not None
    assert "cannot be listened on: " in sentence
    assert "codec" not in sentence
