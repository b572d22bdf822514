"""
Which of the workers a process is: a number that its successor takes over, and with it the files of that number.

The counters of each worker are a file in one private directory, from which whoever is asked adds them up. By number,
not by process id: a worker that replaces a dead one counts on where that ended, so no sum ever falls, and there are
never more files than workers at one time. A number is held by a lock on a file, which the kernel gives back
however its holder ends.
"""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any

from prometheus_client.mmap_dict import MmapedDict, mmap_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Names the directory; prometheus_client reads it too. Without it a process keeps its numbers to itself."""
_MOST = 1024

_held: list[IO[str]] = []
"""The open file whose lock is this process's number: closed, it would be free."""
_name = "supervisor"


@contextmanager
def directory() -> Iterator[None]:
    """Make the directory for the workers of this process, and remove it with everything in it at the end."""
    with TemporaryDirectory(prefix="ladder-metrics-", ignore_cleanup_errors=True) as made:
        os.environ[VARIABLE] = made
        # What tidies the system's temporary files up leaves a directory alone that is locked.
        locked = os.open(made, os.O_RDONLY)
        fcntl.flock(locked, fcntl.LOCK_SH)
        try:
            yield
        finally:
            os.close(locked)
            del os.environ[VARIABLE]


def place() -> Path | None:
    """Return the directory, None in a process that has none."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


class Cell:
    """
    One number in this process's file: what prometheus_client calls a value, and asks for by these names.

    Its own would ask with every count whether the process had been forked, under a lock; here a count is one store of
    8 bytes, which no reader sees half of. Only the event loop's thread counts.
    """

    _multiprocess = True

    def __init__(  # noqa: PLR0917  as prometheus_client calls it
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Sequence[str],
        labelvalues: Sequence[str],
        help_text: str,
        multiprocess_mode: str = "",
        **_: Any,
    ) -> None:
        self._prefix = f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ
        self._key = mmap_key(metric_name, name, list(labelnames), list(labelvalues), help_text)
        _cells.append(self)
        self.bind()

    def bind(self) -> None:
        """Go to the file of the number that this process has now, and on from what it says."""
        if self._prefix not in _files:
            _files[self._prefix] = MmapedDict(str(_directory() / f"{self._prefix}_{_name}.db"))
        file = _files[self._prefix]
        file.read_value(self._key)
        place = file._positions[self._key]  # noqa: SLF001  as it knows them; a file that grows keeps its places
        self._number = memoryview(file._m)[place : place + 8].cast("d")  # noqa: SLF001

    def inc(self, amount: float) -> None:
        """Add."""
        self._number[0] += amount

    def set(self, value: float, timestamp: float | None = None) -> None:  # noqa: ARG002  only kept for "most recent"
        """Put in place."""
        self._number[0] = value

    def get(self) -> float:
        """Return the number."""
        return self._number[0]

    def get_exemplar(self) -> None:
        """Return nothing: exemplars are not kept."""


_cells: list[Cell] = []
_files: dict[str, MmapedDict] = {}


def _directory() -> Path:
    where = place()
    if where is None:
        message = f"{VARIABLE} is not set"
        raise RuntimeError(message)
    return where


def claim() -> None:
    """Take the lowest number that nobody holds; nothing without the directory. Called once, as a worker begins."""
    global _name  # noqa: PLW0603  a process is one worker
    where = place()
    if where is None:
        return
    if "service.metrics" in sys.modules and not _cells:
        message = "service.metrics was imported before there was a directory: nobody would see what it counts"
        raise RuntimeError(message)
    for number in range(_MOST):
        file = (where / f"{number}.slot").open("a+")
        if not _is_free(file):
            file.close()
            continue
        # What the last holder was in the middle of ended with it; what it had counted stays.
        forget(str(number))
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        _held.append(file)
        _name = str(number)
        # What was made before, or came by the fork, counted for the supervisor.
        _files.clear()
        for cell in _cells:
            cell.bind()
        return


def living() -> dict[str, int]:
    """Return the process id by number of those that live; forgets what the others were in the middle of. O(workers)."""
    found: dict[str, int] = {}
    for path in sorted((place() or Path(os.devnull)).glob("*.slot")):
        with path.open("r+") as file:
            if _is_free(file):
                # Under its lock: whoever takes the number over just now has not begun to count.
                forget(path.stem)
            elif (text := file.read()).isdecimal():
                found[path.stem] = int(text)
    return found


def forget(number: str) -> None:
    """Remove the gauges that are only true while their process lives."""
    where = place()
    for path in where.glob(f"gauge_live*_{number}.db") if where else ():
        path.unlink(missing_ok=True)


def _is_free(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
