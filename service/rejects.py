"""Writes down the lines of a list that were refused, with their numbers and the reasons: to a file, or to standard output."""

from __future__ import annotations

import csv
import io
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from service.user_csv import Record

_BLOCK = 1 << 18


class Rejects:
    """
    The file of refused lines, with their numbers and reasons; use as a context manager.

    The file is opened at once, so that an error (`OSError`) shows early, but not changed before `begin`: it may belong to
    another process that imports the same list. After `begin` it is removed at the end if nothing was refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        # What is already there may be of an import that goes on.
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "wb", buffering=_BLOCK)
        self._is_regular = path.is_file()
        self._begun = False
        self._size = 0

    def begin(self, size: int = 0) -> bool:
        """Continue after the first `size` bytes, which an earlier import wrote; False if the file is shorter."""
        if self._is_regular and os.fstat(self._file.fileno()).st_size < size:
            return False
        self._begun = True
        self.cut(size)
        return True

    @property
    def size(self) -> int:
        """The bytes written, 0 if nothing was refused."""
        return self._size

    def cut(self, size: int) -> None:
        """Remove everything after the first `size` bytes."""
        if self._is_regular:
            self._file.flush()
            self._file.truncate(size)
            self._file.seek(size)
        self._size = size

    def sync(self) -> None:
        """Return when everything written would survive a crash of the machine."""
        self._file.flush()
        if self._is_regular:
            os.fsync(self._file.fileno())

    def add(self, record: Record, reason: str) -> None:
        """Write a line as it was, except that what cannot be shown is escaped."""
        self._size += self._file.write(_row(record, reason, header=not self._size))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened = os.fstat(self._file.fileno())
        self._file.close()
        # The path may name a device, or another process's file by now.
        if self._is_regular and self._begun and not self._size:
            with suppress(FileNotFoundError):
                if os.path.samestat(opened, self.path.stat()):
                    self.path.unlink()


class StreamedRejects:
    """
    Refused lines on standard output; use as a context manager.

    What was written there cannot be taken back, and an attempt to write a chunk of lines may be repeated. So the lines
    of a chunk are kept until the next one begins, which is after the commit of this one.
    """

    name = "standard output"

    def __init__(self, descriptor: int) -> None:
        self._file = io.FileIO(descriptor, "wb", closefd=False)
        self._written = 0
        self._pending = bytearray()

    def begin(self, size: int = 0) -> bool:
        """Start; False if an earlier import wrote lines (`size` bytes), because a stream cannot be continued."""
        return size == 0

    @property
    def size(self) -> int:
        """The bytes written and kept, 0 if nothing was refused."""
        return self._written + len(self._pending)

    def cut(self, size: int) -> None:
        """Drop everything after the first `size` bytes, and write the rest out. Raises `OSError`."""
        del self._pending[size - self._written :]
        self._write()

    def sync(self) -> None:
        """Do nothing: what a reader of the stream keeps is not known."""

    def add(self, record: Record, reason: str) -> None:
        """Keep a line as it was, except that what cannot be shown is escaped."""
        self._pending += _row(record, reason, header=not self.size)

    def _write(self) -> None:
        while self._pending:
            count = self._file.write(self._pending) or 0
            self._written += count
            del self._pending[:count]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error it is not known whether the last chunk was committed; the next import tells its lines.
        if error is None:
            self._write()


def _row(record: Record, reason: str, *, header: bool) -> bytes:
    text = record.raw.decode(errors="backslashreplace")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    if header:
        writer.writerow(("line", "reason", "text"))
    writer.writerow((record.number, reason, shown))
    return lines.getvalue().encode()
