"""A Redis or Valkey of a test's own, which it may kill, empty and bring back."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from service.embedded import EmbeddedError
from service.embedded.programs import _valkey_program
from service.parent_death import spawn
from tests.embedded.processes import wait_until


def program() -> Path:
    """The server's program: that of REDIS_BIN or the wheel, else one that is installed; skips without any."""
    try:
        return _valkey_program()
    except EmbeddedError as error:
        if "REDIS_BIN" not in os.environ and (found := shutil.which("redis-server") or shutil.which("valkey-server")):
            return Path(found)
        pytest.skip(str(error))


class OwnRedis:
    """The server, over a socket and a snapshot in a directory of its own; not running until it is started."""

    def __init__(self, folder: Path) -> None:
        self._program = program()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{folder / 'socket'}"

    def start(self, *, port: int = 0, env: Mapping[str, str] | None = None, **more: str) -> None:
        """
        Start with what the last snapshot holds, if there is one, unless it runs; answers at the end.

        Beside the socket it listens on `port` of the loopback address, if that is not 0; `more` are further settings.
        """
        if self._process:
            return
        settings = {"port": str(port), "bind": "127.0.0.1", "unixsocket": "socket", "dir": ".", "save": ""}
        settings |= {"appendonly": "no", "daemonize": "no", "repl-diskless-sync-delay": "0", **more}
        command = [str(self._program), *(word for name, value in settings.items() for word in (f"--{name}", value))]
        with (self._folder / "log").open("ab") as log:
            self._process = spawn(command, death_signal=signal.SIGKILL, env=env, cwd=self._folder, output=log)
        wait_until(self._answers)

    def command(self, *words: str | int) -> Any:
        """Say something to it by hand."""
        with redis.Redis.from_url(self.url) as client:
            return client.execute_command(*words)

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self._folder / "log").read_text()
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.url) as client:
            return bool(client.ping())
        return False

    def save(self) -> None:
        """Take a snapshot, to start from later."""
        with redis.Redis.from_url(self.url) as client:
            client.save()

    def copy_snapshot(self, other: OwnRedis) -> None:
        """Take over what another server holds at this moment; before the start."""
        other.save()
        shutil.copy(other._folder / "dump.rdb", self._folder / "dump.rdb")
        other.forget()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let it hang for the block: connections stay open, and nothing is answered."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Empty it while it runs."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def forget(self) -> None:
        """Remove the snapshot: the next start is an empty one."""
        (self._folder / "dump.rdb").unlink(missing_ok=True)

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
            (self._folder / "socket").unlink(missing_ok=True)


def free_port() -> int:
    """A TCP port of the loopback address that no server listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def another_kind(*options: str) -> Iterator[str]:
    """The URL of a server that runs with these options over TCP: a Sentinel, or a node of a cluster."""
    with tempfile.TemporaryDirectory(prefix="ladder-redis-") as folder:
        # A Sentinel writes to its configuration.
        (Path(folder) / "conf").touch()
        port = free_port()
        command = [str(program()), "conf", *options, "--port", str(port), "--bind", "127.0.0.1", "--daemonize", "no"]
        with (Path(folder) / "log").open("ab") as log:
            process = spawn(command, death_signal=signal.SIGKILL, cwd=folder, output=log)
        url = f"redis://127.0.0.1:{port}/0"

        def answers() -> bool:
            assert process.poll() is None, (Path(folder) / "log").read_text()
            try:
                with redis.Redis.from_url(url) as client:
                    return bool(client.ping())
            except redis.AuthenticationError:
                return True
            except redis.ConnectionError:
                return False

        try:
            wait_until(answers)
            yield url
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def own_redis() -> Iterator[OwnRedis]:
    """A server that has not been started yet, and is gone in the end with all that it kept."""
    # The system's temporary directory and not the test's: the name of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="ladder-redis-") as folder:
        server = OwnRedis(Path(folder))
        try:
            yield server
        finally:
            server.kill()
