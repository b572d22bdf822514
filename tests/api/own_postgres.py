"""A Postgres of a test's own, which it may stop, suspend and start again."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg

from service.embedded import postgres
from service.embedded.programs import Programs, choose_account
from service.embedded.server import Place, Server, open_file


class OwnPostgres:
    """The server, over a socket in a directory of its own; not running until it is started. `url` is its database."""

    def __init__(self, programs: Programs, place: Place) -> None:
        self._programs, self._place = programs, place
        self._running = contextlib.ExitStack()
        self._server: Server | None = None
        self.url = f"postgresql://postgres@/postgres?host={quote(str(place.sockets), safe='')}&port={postgres.PORT}"

    def start(self) -> None:
        """Start it, after a recovery if it was killed; returns when it lets clients in."""
        self._server = self._running.enter_context(postgres.running(self._programs, self._place))
        self._server.wait_until_ready()

    def stop_immediately(self) -> None:
        """End it without a checkpoint, as `pg_ctl stop -m immediate` does."""
        assert self._server
        self._server.process.send_signal(signal.SIGQUIT)
        self._server.process.wait(10)
        self._running.close()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let it hang for the block, every process of it."""
        assert self._server
        # Each of its processes has a group of its own. The first is stopped first, so that no others come.
        pid = self._server.process.pid
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

    def terminate_sessions(self) -> int:
        """End every session of the service; returns how many there were."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).rowcount

    def close(self) -> None:
        """Stop it for good."""
        self._running.close()


@contextlib.contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """A server that runs, and is gone in the end with all that it kept. From the main thread: it ends with that."""
    programs = Programs.find()
    with tempfile.TemporaryDirectory(prefix="ladder-postgres-") as folder:
        data = Path(folder)
        data.chmod(0o711)
        account = choose_account(data, programs)
        lock = open_file(data, "servers.lock")
        place = Place(data, data / "sockets", account, lock)
        place.make_own_directory("sockets")
        server = OwnPostgres(programs, place)
        try:
            server.start()
            yield server
        finally:
            server.close()
            os.close(lock)
