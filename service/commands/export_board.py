"""`ladder export`: write the whole board of one instant as CSV, in rank order."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from service.arguments import Unusable
from service.commands import stores
from service.embedded import EmbeddedError
from service.errors import LadderError, Misconfigured, Unavailable, as_sentence, explain
from service.logs import configure
from service.progress import Pace, Report, progress
from service.settings import SettingsError
from service.store.export import Snapshot, open_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.model import Row

_OK, _FAILED, _WRONG, _NOT_READ, _AWAY, _INTERRUPTED = 0, 1, 2, 3, 5, 130
HEADER = "position,rank,id,username,rating\n"


class Result(msgspec.Struct):
    """What was exported, as it is printed."""

    users: int = 0
    as_of: datetime | None = None
    seconds: float = 0
    output: str | None = None
    error: str | None = None

    def __str__(self) -> str:
        as_of = f"{self.as_of:%Y-%m-%d %H:%M:%S} UTC" if self.as_of else "an unknown time"
        return f"{self.users:,} users as of {as_of}, {self.seconds:.1f} s"


def run(options: argparse.Namespace) -> int:
    """Export and report; returns the exit code."""
    configure("warning")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    result = Result(output=None if options.output == "-" else options.output)
    code = _FAILED
    try:
        _run(options, result)
        code = _OK
    except KeyboardInterrupt:
        code, result.error = _INTERRUPTED, "Interrupted"
    except BrokenPipeError:
        code, result.error = _NOT_READ, "Standard output is not read any more"
    except (Unusable, SettingsError) as error:
        code, result.error = _WRONG, str(error)
    except Misconfigured as error:
        code, result.error = _WRONG, explain(error)
    except (Unavailable, EmbeddedError) as error:
        code, result.error = _AWAY, explain(error)
    except LadderError as error:
        result.error = explain(error)
    except OSError as error:
        result.error = f"{result.output or 'Standard output'} cannot be written: {error.strerror or error}"
    result.seconds = round(time.monotonic() - began, 2)
    _report(result, options)
    return code


def _report(result: Result, options: argparse.Namespace) -> None:
    # On standard error, because the other one may carry the board.
    if options.json:
        print(msgspec.json.encode(result).decode(), file=sys.stderr)
    elif result.error is not None:
        print(as_sentence(f"{options.program}: {result.error}"), file=sys.stderr)
    else:
        print(result, file=sys.stderr)


def _run(options: argparse.Namespace, result: Result) -> None:
    with (
        _opened(options.output) as file,
        stores.chosen(options.data, board=False) as (database_url, _),
        open_snapshot(database_url) as snapshot,
        nullcontext(_say_nothing) if options.json else progress("Exported", snapshot.users) as report,
    ):
        result.as_of = snapshot.as_of.astimezone(UTC)
        _write(snapshot, file, report, result)


def _say_nothing(done: int, words: str) -> None:
    pass


def _write(snapshot: Snapshot, file: IO[bytes], report: Report, result: Result) -> None:
    pace = Pace("users")
    file.write(HEADER.encode())
    for rows in snapshot.rows():
        file.write(text(rows).encode())
        result.users += len(rows)
        report(result.users, pace.words(result.users, snapshot.users))
    file.flush()


def text(rows: list[Row]) -> str:
    """Return rows as lines of CSV: nothing that an id or a username may hold needs quotes."""
    return "".join(f"{row.position},{row.rank},{row.id},{row.username},{row.rating}\n" for row in rows)


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    """Give the file to write to; one with a name gets that name at the end of the block, if nothing is raised."""
    if name == "-":
        if sys.stdout is None:
            raise Unusable("Standard output is closed")
        yield io.BufferedWriter(io.FileIO(sys.stdout.fileno(), "wb", closefd=False))
        return
    # A link is followed, but that of /dev/stdout to a pipe leads to no name.
    path = Path(name).resolve()
    if Path(name).exists() and not Path(name).is_file():
        message = f"{name} is no regular file: leave --output out, and redirect standard output"
        raise Unusable(message)
    try:
        draft = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)  # noqa: SIM115
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise Unusable(message) from error
    try:
        with draft:
            yield draft.file
            os.fsync(draft.fileno())
        Path(draft.name).chmod(_mode(path))
        Path(draft.name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(draft.name).unlink()
        raise


def _mode(path: Path) -> int:
    # As a file that is simply opened: that of the one replaced, else what the process allows.
    if path.exists():
        return path.stat().st_mode & 0o777
    os.umask(mask := os.umask(0o077))
    return 0o666 & ~mask
