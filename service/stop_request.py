"""
How somebody asks a program to stop: SIGINT or SIGTERM, at any moment, more than once.

While things are being started a signal has to interrupt whatever is going on; while they are taken down nothing may.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from types import FrameType

_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})


class Stopped(BaseException):
    """Somebody asked for the end; raised wherever the main thread is, so that no long step delays it."""


class StopRequest:
    """Receives the signals from its making on, and is made in the main thread."""

    def __init__(self) -> None:
        self._made = False
        self._heeded = True
        for number in _SIGNALS:
            signal.signal(number, self._receive)
        # A shell has its background jobs ignore SIGINT, which a handler ends; a parent may also have blocked signals.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        if self._heeded and not self._made:
            self._made = True
            raise Stopped

    def check(self) -> None:
        """Raise Stopped again, between two steps: an exception that meets a finalizer is lost."""
        if self._made:
            raise Stopped

    def ignore(self) -> None:
        """Interrupt nothing any more."""
        self._heeded = False

    def wait(self, child: subprocess.Popen[bytes]) -> bool:
        """
        Wait for the signal or for the end of a child, and say whether it was the signal.

        From here on no signal interrupts: those that come while everything is taken down stay pending for ever.
        """
        awaited = _SIGNALS | {signal.SIGCHLD}
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
        # A child that ended before the signals were blocked sends no more: look first, then wait.
        while not self._made and child.poll() is None:
            self._made = signal.sigwait(awaited) in _SIGNALS
        return self._made
