"""
The end of a service, announced: first it says that it is not ready, then it stops listening, then it is gone.

SIGTERM reaches the supervisor. It tells its workers by a signal of their own, waits for as long as whoever sends
requests here needs to notice that `/health/ready` has turned 503, and only then stops them: no connection is
refused that a balancer still sent. Workers answer what they have begun, end their streams and close their stores.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from granian import net
from granian.server.mp import MPServer, WorkerProcess

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Iterable, Sequence

TOLD = signal.SIGUSR1
"""What a worker is told by; ignored until it serves."""

_log = structlog.get_logger(__name__)


class DrainingServer(MPServer):
    """
    A server that lets `notice` seconds pass between SIGTERM and its end; SIGINT ends it at once.

    What it logs of its own is not wanted but for the death of a worker, of which nobody else can tell.
    """

    notice: float = 0.0
    own: Sequence[socket.socket] = ()
    """Bound already, one for each worker, instead of those that the server would make."""
    _spawning = 0

    def _init_shared_socket(self) -> None:
        if not self.own:
            super()._init_shared_socket()  # type: ignore[no-untyped-call]  # theirs
            return
        for each in self.own:
            each.listen(self.backlog)
        os.register_at_fork(after_in_child=self._leave_the_others)

    def _spawn_worker(self, idx: int, *args: Any, **named: Any) -> WorkerProcess:
        if self.own:
            self._spawning = idx
            # Their types tell neither of its arguments nor that these are ever set.
            holder: Any = net.SocketHolder  # type: ignore[attr-defined]
            self._shd: Any = holder(self.own[idx].fileno(), False, self.backlog)
            self._sso: Any = self.own[idx]
        return super()._spawn_worker(idx, *args, **named)

    def _leave_the_others(self) -> None:
        # Else a worker that is ending would keep the sockets of others listening, with no process to accept from them.
        for idx, each in enumerate(self.own):
            if idx != self._spawning:
                each.close()

    def _drop_shared_socket(self) -> None:
        for each in self.own:
            each.close()

    def _respawn_workers(self, workers: list[int], *args: Any, **named: Any) -> None:
        self._mourn("worker.died", workers)
        super()._respawn_workers(workers, *args, **named)

    def shutdown(self, exit_code: int = 0) -> None:
        """Stop the workers and end; raises `SystemExit` if one that had just been replaced died."""
        if not self.interrupt_signal:
            self._mourn("worker.died_again", self.interrupt_children)
        super().shutdown(exit_code)  # type: ignore[no-untyped-call]  # theirs

    def _mourn(self, event: str, dead: Iterable[int]) -> None:
        for worker in self.wrks:
            if worker.idx in dead and worker.inner.exitcode is not None:
                # Negative: the signal. -9 without anybody's doing is the kernel, out of memory.
                _log.error(event, pid=worker.inner.pid, exit_code=worker.inner.exitcode)

    def signal_handler_interrupt(self, *args: Any, **named: Any) -> None:
        """Begin the end, or have it now: at the second signal, or when nobody needs notice."""
        if args[:1] != (signal.SIGTERM,) or not self.notice:
            super().signal_handler_interrupt(*args, **named)  # type: ignore[no-untyped-call]  # theirs
            return
        notice, self.notice = self.notice, 0.0
        for worker in self.wrks:
            with suppress(ProcessLookupError):
                os.kill(worker.inner.pid, TOLD)
        timer = threading.Timer(notice, super().signal_handler_interrupt)
        timer.daemon = True
        timer.start()


def listen(draining: asyncio.Event, ending: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    """Have the events set when the end is announced, and when it comes. Called in a worker, on its event loop."""

    def end() -> None:
        ending.set()
        os.kill(os.getpid(), signal.SIGINT)

    loop.add_signal_handler(TOLD, draining.set)
    # Both signals stop the server, by one handler of its own. It then waits for whatever it has begun, so streams,
    # which have no end of their own, must hear of it too.
    loop.add_signal_handler(signal.SIGTERM, end)
