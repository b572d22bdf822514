"""
The embedded pair of one data directory: who may start it, who else may use it, and when it is gone.

Two locks in the data directory tell the whole story, and the kernel releases both whatever happens to a process:
`owner.lock` is held by the process that started the pair, `servers.lock` by every process of the two servers, which
inherit it. So a second start is refused while the owner lives, and one right after the owner was killed waits for the
servers, which are on their way down.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg

from service.embedded import postgres, valkey
from service.embedded.programs import EmbeddedError, Programs, choose_account
from service.embedded.server import SOCKETS_PREFIX, Place, open_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.parent_death import Account

_DATABASE = "ladder"
_OWNER_LOCK = "owner.lock"
_SERVERS_LOCK = "servers.lock"
_SOCKETS_PARENT = "/tmp"  # noqa: S108 - short on every system; the owner of what is found there is checked
_LEFT_OVER_SECONDS = 30.0
_SURELY_STARTED_SECONDS = 300.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class EmbeddedPair:
    """Where a running PostgreSQL and its Valkey can be reached by processes of this machine and this user."""

    database_url: str
    redis_url: str


def _pair(sockets: Path) -> EmbeddedPair:
    return EmbeddedPair(_postgres_url(sockets, _DATABASE), f"unix://{sockets / valkey.SOCKET}?db=0")


def _postgres_url(sockets: Path, database: str) -> str:
    # With the port, because libpq would take one from PGPORT otherwise.
    return f"postgresql://postgres@/{database}?host={quote(str(sockets), safe='')}&port={postgres.PORT}"


def running_pair(data: Path) -> EmbeddedPair | None:
    """
    Return the pair that runs over a data directory, whoever started it, or None.

    A pair that is still starting or already stopping counts as none. Raises EmbeddedError when the directory cannot
    be read.
    """
    with _explained(data):
        try:
            lines = (data / _OWNER_LOCK).read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return None
    match lines:
        case [_owner, sockets] if _answers(Path(sockets)):
            return _pair(Path(sockets))
    return None


def _answers(sockets: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(sockets / postgres.SOCKET))
        return valkey.answers(sockets / valkey.SOCKET)
    return False


@contextlib.contextmanager
def open_pair(data: Path) -> Iterator[EmbeddedPair]:
    """
    Use the pair that runs over a data directory, else start one and stop it at the end.

    Raises EmbeddedError as start_pair does.
    """
    if pair := running_pair(data):
        yield pair
        return
    with start_pair(data) as pair:
        yield pair


@contextlib.contextmanager
def start_pair(data: Path) -> Iterator[EmbeddedPair]:
    """
    Start both servers over a data directory, made if it is missing, and stop them at the end.

    Call it from the main thread: the servers end with the thread that started them, so that nothing survives a
    `kill -9` of this process. Raises EmbeddedError when the directory is in use or cannot be used, when there are no
    programs for this platform, or when a server does not start.
    """
    programs = Programs.find()
    with contextlib.ExitStack() as stack:
        with _explained(data):
            data = _made(data)
            owner, servers_lock = stack.enter_context(_locked(data))
            account = choose_account(data, programs)
            sockets = stack.enter_context(_socket_directory(data, account))
            place = Place(data, sockets, account, servers_lock)
            # Valkey loads its data while PostgreSQL makes a cluster or recovers one.
            mirror = stack.enter_context(valkey.running(programs, place))
            ledger = stack.enter_context(postgres.running(programs, place))
        ledger.wait_until_ready()
        _make_database(sockets)
        mirror.wait_until_ready()
        stack.callback(_announce, owner, None)
        _announce(owner, sockets)
        yield _pair(sockets)


@contextlib.contextmanager
def _explained(data: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cause = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        sentence = f"The data directory {data} cannot be used ({cause})."
        raise EmbeddedError(sentence) from error


def _made(data: Path) -> Path:
    data = data.resolve()
    if not data.exists():
        data.mkdir(mode=0o700, parents=True)
        if os.geteuid() == 0:
            # The servers run as another account and have to get through to their own directories.
            data.chmod(0o711)
    return data


@contextlib.contextmanager
def _locked(data: Path) -> Iterator[tuple[int, int]]:
    with contextlib.ExitStack() as stack:
        owner = open_file(data, _OWNER_LOCK)
        stack.callback(os.close, owner)
        if not _lock(owner, wait_seconds=0):
            by = os.pread(owner, 32, 0).decode(errors="replace").partition("\n")[0]
            sentence = (
                f"The data directory {data} is in use by the embedded servers of process {by or 'unknown'}: "
                "stop that one first, or choose another directory."
            )
            raise EmbeddedError(sentence)
        _announce(owner, None)
        servers_lock = open_file(data, _SERVERS_LOCK)
        stack.callback(os.close, servers_lock)
        if not _lock(servers_lock, wait_seconds=_LEFT_OVER_SECONDS):
            sentence = f"The data directory {data} is in use by servers that a process which has ended left behind."
            raise EmbeddedError(sentence)
        yield owner, servers_lock


def _lock(file: int, *, wait_seconds: float) -> bool:
    import fcntl  # noqa: PLC0415 - Windows, where everything is refused, has none

    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True


def _announce(owner: int, sockets: Path | None) -> None:
    # One write, so that a reader sees the whole of it or too little to be a running pair.
    os.ftruncate(owner, 0)
    os.write(owner, f"{os.getpid()}\n{sockets or ''}".encode())


@contextlib.contextmanager
def _socket_directory(data: Path, account: Account | None) -> Iterator[Path]:
    """
    Make a private directory with a short name: a socket's path has at most 107 bytes.

    The name follows from the data directory's, so that a killed owner leaves one directory for its successor to
    clear, not one per start. That makes it predictable, so what is found there must be ours. Raises EmbeddedError
    when somebody else has taken the name.
    """
    owner = account.owner if account else os.geteuid()
    _sweep(owner)
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    path = Path(_SOCKETS_PARENT, f"{SOCKETS_PREFIX}{owner}-{digest}")
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {owner, os.geteuid()}:
            sentence = f"The directory {path} belongs to somebody else, and the embedded servers need that name."
            raise EmbeddedError(sentence)
        shutil.rmtree(path)
    path.mkdir(mode=0o700)
    try:
        os.chown(path, owner, -1)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _sweep(owner: int) -> None:
    # Servers whose owner was killed empty their directory and leave it; over a data directory that is gone for good,
    # no successor clears it. A young one may be of a pair that is starting just now.
    for path in Path(_SOCKETS_PARENT).glob(f"{SOCKETS_PREFIX}{owner}-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _SURELY_STARTED_SECONDS:
                path.rmdir()


def _make_database(sockets: Path) -> None:
    with psycopg.connect(_postgres_url(sockets, "postgres"), autocommit=True) as connection:
        if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [_DATABASE]).rowcount:
            connection.execute(f"CREATE DATABASE {_DATABASE}")
