"""The connections of a process are found by their peers, and nothing else is touched."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from service.sockets import hang_up, limit_unsent


def open_files() -> int:
    """How many files this process has open."""
    return sum(1 for _ in Path("/dev/fd").iterdir())


def test_the_connections_to_these_peers_are_broken_off() -> None:
    """Those to others are not; and no file is left open."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
        clients = [held.enter_context(socket.create_connection(listener.getsockname(), timeout=5)) for _ in range(3)]
        accepted = [held.enter_context(listener.accept()[0]) for _ in clients]
        before = open_files()

        assert 1 == hang_up({clients[1].getsockname()})
        assert b"" == clients[1].recv(1)
        for client, connection in ((clients[0], accepted[0]), (clients[2], accepted[2])):
            connection.sendall(b"x")
            assert b"x" == client.recv(1)
        assert 0 == hang_up({("127.0.0.1", 1)})
        assert before == open_files()


def test_the_kernel_takes_little_for_a_client_that_does_not_read() -> None:
    """For connections that are accepted from now on; without it, megabytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        limit_unsent(16 * 1024)
        with socket.create_connection(listener.getsockname(), timeout=5):
            connection, _ = listener.accept()
            with connection:
                assert 16 * 1024 == connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
