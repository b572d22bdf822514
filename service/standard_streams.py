"""
Runs a program so that it ends in a defined way, whatever its three standard streams lead to.

Closed at start (`>&-`): /dev/null takes the descriptor's number. Otherwise the next file or connection would get it, and
receive what is printed. `sys.stdin` and `sys.stdout` stay None, as Python sets them then.

Standard error cannot be written (`2>&1 | head`, a full disk): the message is dropped, the work goes on.

Standard output cannot be written: if the reader has gone (`| head`), that is no error, and the exit code is that of the
work. Anything else, for example a full disk, is an error: exit code 1 and a sentence.

Imports the standard library alone and runs on Python 3.8.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

_FAILED = 1


class _Stream(io.FileIO):
    """Takes everything that is written, and remembers the first error instead of raising it."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            return memoryview(data).nbytes


def run(work: Callable[[], int], *, program: str) -> int:
    """Run a program with its standard streams; returns its exit code, also if it raises SystemExit."""
    for number in range(3):
        _take(number)
    output = _wrap("stdout")
    if sys.stderr is None:
        # `print` takes a file of None for standard output.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  it stays open
    else:
        _wrap("stderr")
    try:
        code = work()
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        code = end.code
    if output is None:
        return code
    sys.stdout.flush()
    if output.error is None or output.error.errno == errno.EPIPE:
        return code
    print(f"{program}: standard output cannot be written: {output.error.strerror}.", file=sys.stderr)  # noqa: T201
    return _FAILED


def _take(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        # The lowest free number is given out, and those below this one are taken.
        os.open(os.devnull, os.O_RDWR)


def _wrap(name: str) -> _Stream | None:
    stream: TextIO | None = getattr(sys, name)
    if not isinstance(stream, io.TextIOWrapper):
        return None
    raw = _Stream(stream.fileno(), "wb", closefd=False)
    stream.flush()
    text = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    setattr(sys, name, text)
    return raw
