"""`ladder import`: take a list of users, line by line, and wait until the board shows them."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec

from service.arguments import Unusable
from service.checkout import RECONCILE
from service.commands import stores
from service.commands.consent import foresee, require
from service.commands.following import following
from service.embedded import EmbeddedError
from service.errors import LadderError, Misconfigured, OutcomeUnknown, Unavailable, as_sentence, explain
from service.logs import configure
from service.progress import Pace, progress
from service.ranking.bulk import CHUNK_LINES, Line, Outcome, take, take_deferred
from service.ranking.deferred import Deferred
from service.ranking.loss import is_replaced
from service.ranking.repair import NotSafe
from service.ranking.tail import Tailer
from service.rejects import Rejects, StreamedRejects
from service.settings import SettingsError, confirms_takeover
from service.store import redis
from service.store.bulk import Busy, Intake, Progress, open_intake
from service.store.feed import Feed
from service.store.history import succeeds
from service.store.migrate import migrate
from service.store.mirror import Mirror, State
from service.user_csv import BadList, Record, Scan, UserCsv, scan

_OK, _FAILED, _WRONG, _SOME_REFUSED, _BUSY, _AWAY, _REFUSED, _INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130
_BOARD_SECONDS = 60
_USERS_PER_SECOND = 2_000
"""The board may take a minute to show the import, and a second more for each 2,000 changed users."""


class Result(msgspec.Struct):
    """What the import did, as it is printed; in a dry run what it would have done."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: int = 0
    seconds: float = 0
    dry_run: bool = False
    resumed_after_line: int | None = None
    rejects: str | None = None
    error: str | None = None

    @property
    def taken(self) -> int:
        """Lines that were not refused."""
        return self.created + self.updated + self.unchanged

    def __str__(self) -> str:
        return (
            f"{'Dry run, nothing was changed: ' if self.dry_run else ''}{self.taken:,} taken ({self.created:,} created,"
            f" {self.updated:,} updated, {self.unchanged:,} unchanged), {self.refused:,} refused"
            f"{f' (see {self.rejects})' if self.rejects else ''}, {self.seconds:.1f} s"
            f"{f' (resumed after line {self.resumed_after_line:,})' if self.resumed_after_line else ''}"
        )


def run(options: argparse.Namespace) -> int:
    """Import and report; returns the exit code."""
    configure("warning")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    result = Result(dry_run=options.dry_run)
    code = _FAILED
    try:
        _run(options, result)
        code = _SOME_REFUSED if result.refused else _OK
    except KeyboardInterrupt:
        code, result.error = _INTERRUPTED, "Interrupted"
    except (Unusable, BadList, SettingsError) as error:
        code, result.error = _WRONG, str(error)
    except Misconfigured as error:
        code, result.error = _WRONG, explain(error)
    except Busy as error:
        code, result.error = _BUSY, str(error)
    except NotSafe as error:
        code, result.error = _REFUSED, str(error)
    except (Unavailable, OutcomeUnknown, EmbeddedError) as error:
        code, result.error = _AWAY, explain(error)
    except BrokenPipeError:
        result.error = "Standard output is not read any more"
    except LadderError as error:
        result.error = explain(error)
    except OSError as error:
        result.error = f"The refused lines cannot be written: {error.strerror or error}"
    result.seconds = round(time.monotonic() - began, 2)
    _report(result, options)
    return code


def _report(result: Result, options: argparse.Namespace) -> None:
    if result.error is not None:
        print(as_sentence(f"{options.program}: {result.error}"), file=sys.stderr)
    # Beside refused lines on standard output it would be one more of them.
    file = sys.stderr if options.rejects == "-" else sys.stdout
    if options.json:
        print(msgspec.json.encode(result).decode(), file=file)
    elif result.error is None or result.created or result.updated:
        print(result, file=file)


def _run(options: argparse.Namespace, result: Result) -> None:
    if options.file == "-" and sys.stdin is None:
        raise Unusable("Standard input is closed")
    if options.rejects == "-" and sys.stdout is None:
        raise Unusable("Standard output is closed, and --rejects - needs it")
    with ExitStack() as stack:
        file = stack.enter_context(_opened(options.file))
        source = _Source(file, scanned=not options.dry_run)
        rejects = _rejects(options, file)
        stack.enter_context(rejects)
        make = not options.dry_run
        database_url, redis_url = stack.enter_context(stores.chosen(options.data, make=make))
        if options.dry_run:
            rejects.begin()
            with open_intake(database_url, dry_run=True) as intake:
                _Import(source, intake, rejects, result, Progress()).run()
            return
        # Asked now: an unreachable Redis must be found before everything is committed and only the board is missing.
        board = asyncio.run(_board(redis_url))
        migrate(database_url)
        asyncio.run(_check_board(board, database_url))
        _ask_for_board(options, database_url, redis_url)
        with open_intake(database_url, digest=source.scan.digest if source.scan else None) as intake:
            with following(database_url, redis_url):
                done = _begin(source, intake, rejects, result, anew=options.anew)
                _Import(source, intake, rejects, result, done).run()
            asyncio.run(_wait_for_board(database_url, redis_url, result.created + result.updated))
            if source.scan:
                # Only once the board shows it: an import that is killed while it waits must wait again when repeated.
                intake.forget()


def _begin(
    source: _Source, intake: Intake, rejects: Rejects | StreamedRejects, result: Result, *, anew: bool
) -> Progress:
    """Find out where the import goes on, and put everything there."""
    if source.scan is None:
        rejects.begin()
        return Progress()
    done = intake.begin(anew=anew)
    if not rejects.begin(done.rejects):
        # The lines that were refused can no longer be listed.
        done = intake.begin(anew=True)
    if done.line:
        source.skip_to(done)
        result.resumed_after_line = done.line
    return done


class _Source:
    """
    The list: its lines, and what reading it once before has told, if it could be read twice.

    Raises `BadList`, also if the file is written while it is read.
    """

    def __init__(self, file: BinaryIO, *, scanned: bool) -> None:
        self._file = file
        status = os.fstat(file.fileno())
        self.is_regular = stat.S_ISREG(status.st_mode)
        self._status = (status.st_size, status.st_mtime_ns)
        self.size = status.st_size if self.is_regular else None
        self.scan: Scan | None = None
        if scanned and self.is_regular:
            with progress("Checked", self.size) as report:
                try:
                    self.scan = scan(file, lambda done: report(done, f"{done >> 20:,} MiB"))
                except OSError as error:
                    message = f"the file cannot be read ({error.strerror})"
                    raise BadList(message) from error
                report(status.st_size, f"{status.st_size >> 20:,} MiB, {self.scan.lines:,} lines")
        self.users = UserCsv(file)
        self.deferred: list[Record] = []

    def skip_to(self, done: Progress) -> None:
        """Go on after the lines that were judged; `deferred` are those that still wait."""
        self.deferred = self.users.skip_to(done.line, keep=frozenset(done.deferred))

    def chunks(self) -> Iterator[list[Record]]:
        """Give the lines that are left, `CHUNK_LINES` at a time; a regular file is read one ahead, in another thread."""
        records = iter(self.users)
        if not self.is_regular:
            # A thread that waits for a pipe cannot be interrupted, so the pipe is read in this one.
            while chunk := list(islice(records, CHUNK_LINES)):
                yield chunk
            return
        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(lambda: list(islice(records, CHUNK_LINES)))
            while chunk := following.result():
                following = reader.submit(lambda: list(islice(records, CHUNK_LINES)))
                yield chunk
                self._check()

    def _check(self) -> None:
        status = os.fstat(self._file.fileno())
        if self._status != (status.st_size, status.st_mtime_ns):
            message = "the file was changed while it was imported: import it again"
            raise BadList(message)

    def position(self) -> int:
        """Bytes of the file that have been read; 0 if its size is unknown."""
        return self._file.tell() if self.is_regular else 0


def _opened(name: str) -> BinaryIO:
    if name == "-":
        return sys.stdin.buffer
    try:
        return Path(name).open("rb")
    except OSError as error:
        message = f"{name} cannot be read: {error.strerror}"
        raise Unusable(message) from error


def _rejects(options: argparse.Namespace, file: BinaryIO) -> Rejects | StreamedRejects:
    if options.rejects == "-":
        return StreamedRejects(sys.stdout.fileno())
    # The file of an unfinished import must outlive a dry run of the same list: it is needed to resume.
    suffix = ".dry-run.rejects.csv" if options.dry_run else ".rejects.csv"
    path = Path(options.rejects or f"{'stdin' if options.file == '-' else options.file}{suffix}")
    try:
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            message = f"{path} is the list itself: name another file with --rejects"
            raise Unusable(message)
        return Rejects(path)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}; name another file with --rejects"
        raise Unusable(message) from error


class _Import:
    """The lines of a source on their way into an intake: what became of them, and which wait for the end of the list."""

    def __init__(
        self, source: _Source, intake: Intake, rejects: Rejects | StreamedRejects, result: Result, done: Progress
    ) -> None:
        self._source = source
        self._intake = intake
        self._rejects = rejects
        self._result = result
        self._done = done
        self._deferred = Deferred(record.content for record in source.deferred if isinstance(record.content, Line))
        self._waiting = {record.number: record for record in source.deferred}

    def run(self) -> None:
        """Take every line, then those that waited for the end."""
        scan = self._source.scan
        self._tell()
        pace = Pace("lines", begun=self._done.line)
        with progress("Users", scan.lines if scan else self._source.size) as report:
            for chunk in self._source.chunks():
                self._take(chunk)
                if scan:
                    report(self._done.line, pace.words(self._done.line, scan.lines))
                else:
                    report(self._source.position(), f"{self._judged:,} lines")
            while self._deferred:
                self._commit([], partial(take_deferred, self._intake, self._deferred))
                report(self._done.line, f"{self._judged:,} lines")

    @property
    def _judged(self) -> int:
        return self._result.taken + self._result.refused

    def _take(self, chunk: list[Record]) -> None:
        lines = [record.content for record in chunk if isinstance(record.content, Line)]
        repeats = self._source.scan.repeats if self._source.scan else None
        self._commit(chunk, partial(take, self._intake, lines, deferred=self._deferred, repeats=repeats))

    def _commit(self, chunk: list[Record], step: Callable[..., Outcome]) -> None:
        """Run a step, and keep how far the import is with what the step commits."""
        before, after = self._done, self._done
        records = self._waiting | {record.number: record for record in chunk}

        def settle(outcome: Outcome) -> None:
            nonlocal after
            # A failed attempt may have written lines already.
            self._rejects.cut(before.rejects)
            refused = {record.number: record.content for record in chunk if isinstance(record.content, str)}
            refused |= outcome.refused
            for number in sorted(refused):
                self._rejects.add(records[number], refused[number])
            after = Progress(
                chunk[-1].number if chunk else before.line,
                before.created + outcome.created,
                before.updated + outcome.updated,
                before.unchanged + outcome.unchanged,
                before.refused + len(refused),
                self._rejects.size,
                tuple(line.number for line in outcome.deferred.lines),
            )
            if self._source.scan:
                if refused:
                    self._rejects.sync()
                self._intake.keep(after)

        self._deferred = step(settle=settle).deferred
        self._waiting = {number: records[number] for number in after.deferred}
        self._done = after
        self._tell()

    def _tell(self) -> None:
        done = self._done
        self._result.created, self._result.updated, self._result.unchanged = done.created, done.updated, done.unchanged
        self._result.refused = done.refused
        self._result.rejects = self._rejects.name if done.refused else None


async def _board(redis_url: str) -> State | None:
    async with redis.connect_feed(redis_url) as client:
        return await Mirror(client).state()


async def _check_board(board: State | None, database_url: str) -> None:
    # The tailer that follows an import replaces a board of another database: one wrong address must not take a board
    # from the service that uses it.
    async with Feed(database_url) as feed:
        source = await feed.source()
    if board is not None and not succeeds(source, board.source):
        message = (
            f"REDIS_URL names the board of another database ({board.source}) than DATABASE_URL ({source}): correct that, or,"
            f" if this is the right one, run {RECONCILE} --incremental --force first"
        )
        raise Unusable(message)


def _ask_for_board(options: argparse.Namespace, database_url: str, redis_url: str) -> None:
    """Ask before the board of an earlier history is replaced, if it would lose much; raises `NotSafe`."""
    foreseen = asyncio.run(foresee(database_url, redis_url, lambda source, state, _: is_replaced(state, source)))
    if foreseen:
        require(options, "Loading the board anew from this database", foreseen, redis_url)


async def _wait_for_board(database_url: str, redis_url: str, changed: int) -> None:
    seconds = _BOARD_SECONDS + changed / _USERS_PER_SECOND
    try:
        with progress("Board", None) as report:
            async with redis.connect_feed(redis_url) as client, asyncio.timeout(seconds):
                tailer = Tailer(database_url, Mirror(client), confirms=confirms_takeover(os.environ))
                await tailer.catch_up(progress=lambda users: report(users, f"{users:,} users"))
    except (TimeoutError, Unavailable) as error:
        reason = f"not within {seconds:.0f} s" if isinstance(error, TimeoutError) else str(error)
        message = f"Everything is in Postgres, but the board does not show all of it yet ({reason})"
        raise Unavailable(message) from error
