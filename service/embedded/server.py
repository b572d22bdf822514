"""
What both embedded servers have in common: where they live, and how each is started, watched and stopped.

Both listen on Unix sockets only, in a private directory, and trust whoever can open that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service.embedded.programs import EmbeddedError
from service.parent_death import Account, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SOCKETS_PREFIX = "ladder-"
"""How the names of our directories of sockets begin."""

_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Place:
    """Where one pair lives: its data, its sockets, its account, and the lock its servers keep while they live."""

    data: Path
    sockets: Path
    account: Account | None
    servers_lock: int

    def make_own_directory(self, name: str) -> Path:
        """Make sure of a private directory in the data directory that belongs to the servers' account."""
        directory = self.data / name
        directory.mkdir(mode=0o700, exist_ok=True)
        if self.account and not self.account.namespace:
            os.chown(directory, self.account.uid, self.account.gid)
        return directory


def open_file(data: Path, name: str) -> int:
    """
    Open a lock or log file of the data directory for reading and appending; create it if it is missing.

    What root creates is given to the directory's owner, who may well start the pair the next time.
    """
    file = os.open(data / name, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if os.geteuid() == 0:
        owner = data.stat()
        os.fchown(file, owner.st_uid, owner.st_gid)
    return file


@dataclass(frozen=True, slots=True)
class Server:
    """One server that has been started and may not be ready yet."""

    name: str
    process: subprocess.Popen[bytes]
    stop_signal: signal.Signals
    log: Path
    log_start: int
    is_ready: Callable[[], bool]

    def wait_until_ready(self) -> None:
        """Return when the server answers; raise EmbeddedError with its last words when it ends or hangs instead."""
        deadline = time.monotonic() + _START_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None:
                sentence = f"The embedded {self.name} did not start: {self._last_words()} (see {self.log})."
                raise EmbeddedError(sentence)
            if time.monotonic() > deadline:
                sentence = f"The embedded {self.name} is not ready after {_START_SECONDS:.0f} s (see {self.log})."
                raise EmbeddedError(sentence)
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Stop the server and wait for its end; one that does not end in time is killed and recovers when started."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _last_words(self) -> str:
        with self.log.open("rb") as stream:
            stream.seek(self.log_start)
            return complaint(stream.read())


@contextlib.contextmanager
def started(
    name: str, command: Sequence[str], place: Place, stop_signal: signal.Signals, is_ready: Callable[[], bool]
) -> Iterator[Server]:
    """Start a server that logs to the data directory, and stop it at the end. It also gets the signal if we die."""
    log = place.data / f"{name.lower()}.log"
    output = open_file(place.data, log.name)
    try:
        log_start = os.fstat(output).st_size
        process = spawn(
            command,
            death_signal=stop_signal,
            account=place.account,
            env=environment(),
            cwd="/",
            output=output,
            keep_open=[place.servers_lock],
        )
    finally:
        os.close(output)
    server = Server(name, process, stop_signal, log, log_start, is_ready)
    try:
        yield server
    finally:
        server.stop()


def environment() -> dict[str, str]:
    """What the servers get to see: neither secrets of ours nor the host's locale or time zone."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def complaint(output: bytes) -> str:
    """Return the line of a program's output that best tells why it gave up."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "error" in line.lower()]
    return (telling or lines or ["it said nothing"])[-1].strip("*. ")
