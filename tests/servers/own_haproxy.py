"""An HAProxy of a test's own before two servers, of which it leads to one."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.parent_death import spawn
from tests.api.serving import free_port, wait_until

_CONFIGURATION = """
global
    maxconn 500
    stats socket {folder}/admin level admin
defaults
    mode tcp
    timeout connect 200ms
    timeout client 1h
    timeout server 1h
listen servers
    bind 127.0.0.1:{port}
    server first 127.0.0.1:{first}
    server second 127.0.0.1:{second} disabled
"""


class OwnHaproxy:
    """The proxy, which leads to the first server at first. Connections that are open stay where they are."""

    def __init__(self, folder: Path, port: int) -> None:
        self._admin = str(folder / "admin")
        self.url = f"redis://127.0.0.1:{port}/0"

    def lead_to_second(self) -> None:
        """Lead new connections to the second server."""
        self._say("set server servers/second state ready")
        self._say("set server servers/first state maint")

    def cut_first(self) -> None:
        """End what is open to the first server."""
        self._say("shutdown sessions server servers/first")

    def answers(self) -> bool:
        """Whether it takes orders."""
        with contextlib.suppress(OSError):
            return "servers" in self._say("show servers state")
        return False

    def _say(self, order: str) -> str:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(self._admin)
            line.sendall(f"{order}\n".encode())
            return b"".join(iter(lambda: line.recv(4096), b"")).decode()


@contextlib.contextmanager
def own_haproxy(first: int, second: int) -> Iterator[OwnHaproxy]:
    """One that runs until the end of the block, before two ports of this host; skips where none is installed."""
    program = shutil.which("haproxy")
    if program is None:
        pytest.skip("haproxy is not installed")
    with tempfile.TemporaryDirectory(prefix="ladder-haproxy-") as name:
        folder, port = Path(name), free_port()
        configuration = folder / "haproxy.cfg"
        configuration.write_text(_CONFIGURATION.format(folder=folder, port=port, first=first, second=second))
        with (folder / "log").open("wb") as log:
            process = spawn([program, "-db", "-f", str(configuration)], death_signal=signal.SIGTERM, output=log)
        try:
            made = OwnHaproxy(folder, port)
            wait_until(made.answers)
            yield made
        finally:
            process.kill()
            process.wait()
