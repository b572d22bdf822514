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

from granian.server.mp import MPServer

if TYPE_CHECKING:
    import asyncio

TOLD = signal.SIGUSR1
"""What a worker is told by; ignored until it serves."""


class DrainingServer(MPServer):
    """A server that lets `notice` seconds pass between SIGTERM and its end; SIGINT ends it at once."""

    notice: float = 0.0

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


def listen(draining: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    """Have the event set when the supervisor announces the end. Called in a worker, on its event loop."""
    loop.add_signal_handler(TOLD, draining.set)
