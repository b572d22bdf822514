"""A Postgres of a test's own, which it may kill, suspend, copy, let follow another one, and promote."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.embedded import EmbeddedError
from service.embedded.programs import Programs, _postgres_program, choose_account
from service.parent_death import Account, spawn
from tests.embedded.processes import wait_until

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_directories": "..",
    "max_connections": "100",
    "shared_buffers": "16MB",
    "checkpoint_timeout": "1h",
}


def programs() -> Programs:
    """The server's programs: those of PG_BIN or the wheel, else some that are installed; skips without any."""
    try:
        return Programs(*(_postgres_program(name) for name in ("postgres", "initdb", "postgres")))
    except EmbeddedError as error:
        for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
            if (folder / "initdb").exists():
                return Programs(folder / "postgres", folder / "initdb", folder / "postgres")
        pytest.skip(str(error))


class OwnPostgres:
    """One server over `folder`/data, with its socket in `folder`; not running until it is started."""

    def __init__(self, folder: Path, found: Programs, account: Account | None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self._programs, self.account = folder, found, account
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = f"{folder}/.s.PGSQL.5432"
        self.url = f"postgresql://postgres@/postgres?host={str(folder).replace('/', '%2F')}&port=5432"

    def make(self) -> None:
        """Make an empty cluster."""
        self._own()
        command = [str(self._programs.initdb), "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"]
        with (self.folder / "log").open("ab") as log:
            made = spawn(
                [*command, "--locale=C"], death_signal=signal.SIGKILL, account=self.account,
                env=_environment(), cwd=self.folder, output=log,
            )  # fmt: skip
        assert made.wait() == 0, (self.folder / "log").read_text()

    def copy(self, name: str) -> OwnPostgres:
        """The same cluster once more, as it is on disk now; this one must not run."""
        assert not self._process
        other = OwnPostgres(self.folder.with_name(name), self._programs, self.account)
        shutil.copytree(self.folder / "data", other.folder / "data")
        other._own()
        return other

    def _own(self) -> None:
        if self.account and not self.account.namespace:
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, self.account.uid, self.account.gid)

    def follow(self, primary: OwnPostgres) -> None:
        """Be a standby of that one from the next start on."""
        self._recover("standby.signal", f"primary_conninfo = 'host={primary.folder} port=5432 user=postgres'")

    def recover(self) -> None:
        """Begin a new timeline with the next start, as after the restore of a backup from an archive."""
        self._recover("recovery.signal", "restore_command = 'false'")

    def _recover(self, file: str, setting: str) -> None:
        (self.folder / "data" / file).touch()
        with (self.folder / "data" / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"{setting}\n")
        self._own()

    def start(self) -> None:
        """Start; takes sessions at the end."""
        options = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = spawn(
                [str(self._programs.postgres), "-D", "data", *options], death_signal=signal.SIGINT,
                account=self.account, env=_environment(), cwd=self.folder, output=log,
            )  # fmt: skip
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self.folder / "log").read_text()
        with contextlib.suppress(psycopg.OperationalError):
            return bool(self.ask("SELECT true"))
        return False

    def ask(self, statement: str) -> Any:
        """The first value that a statement returns, None if it returns none."""
        with psycopg.connect(self.url, autocommit=True) as session:
            cursor = session.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def terminate_sessions(self) -> None:
        """End every session of others."""
        self.ask(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let it hang for the block, every process of it."""
        assert self._process
        # Each of its processes has a group of its own. The first is stopped first, so that no others come.
        pid = self._process.pid
        stopped = [pid]
        try:
            os.kill(pid, signal.SIGSTOP)
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGSTOP)
                    stopped.append(int(child))
            yield
        finally:
            for one in reversed(stopped):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGCONT)

    def promote(self) -> None:
        """Be a primary, on a timeline of its own."""
        assert self.ask("SELECT pg_promote()")

    def stop(self) -> None:
        """Shut down in good order."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a power cut does: nothing is written any more."""
        self._end(signal.SIGQUIT)

    def remove(self) -> None:
        """Kill it, and remove all that it kept."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


@contextlib.contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """An empty cluster that has not been started yet, and is gone in the end with all its copies."""
    found = programs()
    # The system's temporary directory and not the test's: the name of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="ladder-pg-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = OwnPostgres(folder / "origin", found, choose_account(folder, found))
        server.make()
        try:
            yield server
        finally:
            server.kill()
