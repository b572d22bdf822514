"""A PgBouncer of a test's own, before a Postgres of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.parent_death import spawn
from tests.embedded.processes import wait_until
from tests.servers.own_postgres import OwnPostgres


@contextlib.contextmanager
def own_pgbouncer(postgres: OwnPostgres, mode: str, **settings: str) -> Iterator[str]:
    """Start one in that pool mode for the block; gives its URL. Skips without the program."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if not program:
        pytest.skip("there is no pgbouncer")
    folder = postgres.folder / "pgbouncer"
    folder.mkdir(exist_ok=True)
    lines = {
        "pool_mode": mode,
        "auth_type": "any",
        "unix_socket_dir": str(folder),
        "listen_addr": "",
        "listen_port": "6432",
        "logfile": str(folder / "log"),
        **settings,
    }
    text = "\n".join(f"{name} = {value}" for name, value in lines.items())
    (folder / "ini").write_text(
        f"[databases]\n* = host={postgres.folder} port=5432 user=postgres\n[pgbouncer]\n{text}\n"
    )
    if postgres.account:
        os.chown(folder, postgres.account.uid, postgres.account.gid)
    process = spawn([program, "-q", "ini"], death_signal=signal.SIGKILL, account=postgres.account, cwd=folder)
    try:
        wait_until(lambda: _listens(folder / ".s.PGSQL.6432"))
        yield f"postgresql://postgres@/postgres?host={str(folder).replace('/', '%2F')}&port=6432"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def _listens(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        return True
    return False
