"""How much of the processors some processes had, and how long they waited for one, by the kernel's own account."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import msgspec


class ProcessorTime(msgspec.Struct, frozen=True):
    """Seconds of all threads together: on a processor, and ready to run while others had it."""

    running: float = 0.0
    waiting: float = 0.0

    def since(self, before: ProcessorTime) -> ProcessorTime:
        """Return what came after `before`."""
        return ProcessorTime(self.running - before.running, self.waiting - before.waiting)


def processor_time(processes: Sequence[int]) -> ProcessorTime:
    """Return what these processes have had up to now. A thread that has ended counts no more."""
    running = waiting = 0
    for process in processes:
        for thread in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                told = (thread / "schedstat").read_text().split()
                running, waiting = running + int(told[0]), waiting + int(told[1])
    return ProcessorTime(running / 1e9, waiting / 1e9)
