"""`ladder import`: take a list of users, line by line, and wait until the board shows them."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec

from service.commands import stores
from service.commands.following import following
from service.embedded import EmbeddedError
from service.errors import LadderError, Misconfigured, OutcomeUnknown, Unavailable, explain
from service.logs import configure
from service.progress import Pace, progress
from service.ranking.bulk import CHUNK_LINES, Line, Outcome, take
from service.ranking.tail import Tailer
from service.settings import SettingsError
from service.store import redis
from service.store.bulk import Busy, Intake, Progress, open_intake
from service.store.feed import Feed
from service.store.history import succeeds
from service.store.migrate import migrate
from service.store.mirror import Mirror, State
from service.user_csv import BadList, Record, Rejects, Scan, UserCsv, scan

_OK, _FAILED, _WRONG, _SOME_REFUSED, _BUSY, _AWAY, _INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
_BOARD_SECONDS = 60
"""How long the board may take to show the import, and a second more for every so many users:"""
_USERS_PER_SECOND = 2_000


class Unusable(Exception):
    """The arguments name something that cannot be used; the message is one sentence."""


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
    except (Unavailable, OutcomeUnknown, EmbeddedError) as error:
        code, result.error = _AWAY, explain(error)
    except (LadderError, OSError) as error:
        result.error = explain(error)
    result.seconds = round(time.monotonic() - began, 2)
    _report(result, options)
    return code


def _report(result: Result, options: argparse.Namespace) -> None:
    if result.error is not None:
        print(f"{options.program}: {result.error.rstrip('.')}.", file=sys.stderr)
    if options.json:
        print(msgspec.json.encode(result).decode())
    elif result.error is None or result.created or result.updated:
        print(result)


def _run(options: argparse.Namespace, result: Result) -> None:
    with ExitStack() as stack:
        file = stack.enter_context(_opened(options.file))
        source = _Source(file, scanned=not options.dry_run)
        rejects = stack.enter_context(_rejects(options, file))
        make = not options.dry_run
        database_url, redis_url = stack.enter_context(stores.chosen(options.data, make=make))
        if options.dry_run:
            rejects.begin()
            with open_intake(database_url, dry_run=True) as intake:
                _take_all(source, intake, rejects, result, Progress())
            return
        # Rather now than when everything is committed and only the board is missing.
        board = asyncio.run(_board(redis_url))
        migrate(database_url)
        asyncio.run(_check_board(board, database_url))
        with open_intake(database_url, digest=source.scan.digest if source.scan else None) as intake:
            with following(database_url, redis_url):
                _take_all(source, intake, rejects, result, _begin(source, intake, rejects, result, anew=options.anew))
            asyncio.run(_wait_for_board(database_url, redis_url, result.created + result.updated))
            if source.scan:
                # Not before the board shows it: who is killed while it waits goes on waiting.
                intake.forget()


def _begin(source: _Source, intake: Intake, rejects: Rejects, result: Result, *, anew: bool) -> Progress:
    """Find out where the import goes on, and put everything there."""
    if source.scan is None:
        rejects.begin()
        return Progress()
    done = intake.begin(anew=anew)
    if not rejects.begin(done.rejects):
        # What was refused of it cannot be told any more.
        done = intake.begin(anew=True)
    if done.line:
        source.users.skip_to(done.line)
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
                self.scan = scan(file, lambda done: report(done, f"{done >> 20:,} MiB"))
                report(status.st_size, f"{status.st_size >> 20:,} MiB, {self.scan.lines:,} lines")
        self.users = UserCsv(file)

    def chunks(self) -> Iterator[list[Record]]:
        """Give the lines that are left, `CHUNK_LINES` at a time; a regular file is read one ahead, in another thread."""
        records = iter(self.users)
        if not self.is_regular:
            # Whoever waits for a pipe in another thread cannot be interrupted.
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
        """How many bytes of the file have been read; 0 where nobody knows of how many."""
        return self._file.tell() if self.is_regular else 0


def _opened(name: str) -> BinaryIO:
    if name == "-":
        return sys.stdin.buffer
    try:
        return Path(name).open("rb")
    except OSError as error:
        message = f"{name} cannot be read: {error.strerror}"
        raise Unusable(message) from error


def _rejects(options: argparse.Namespace, file: BinaryIO) -> Rejects:
    # An import that goes on after a dry run of its list needs its own.
    suffix = ".dry-run.rejects.csv" if options.dry_run else ".rejects.csv"
    path = options.rejects or Path(f"{'stdin' if options.file == '-' else options.file}{suffix}")
    try:
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            message = f"{path} is the list itself: name another file with --rejects"
            raise Unusable(message)
        return Rejects(path)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}; name another file with --rejects"
        raise Unusable(message) from error


def _take_all(source: _Source, intake: Intake, rejects: Rejects, result: Result, done: Progress) -> None:
    repeats = source.scan.repeats if source.scan else None
    pace = Pace()
    _tell(done, rejects, result)
    with progress("Users", source.scan.lines if source.scan else source.size) as report:
        began = done.line
        for chunk in source.chunks():
            after = done

            def settle(outcome: Outcome, chunk: list[Record] = chunk, before: Progress = done) -> None:
                nonlocal after
                # An attempt before this one may have written something.
                rejects.cut(before.rejects)
                refused = _reject(rejects, chunk, outcome)
                after = Progress(
                    chunk[-1].number,
                    before.created + outcome.created,
                    before.updated + outcome.updated,
                    before.unchanged + outcome.unchanged,
                    before.refused + refused,
                    rejects.size,
                )
                if source.scan:
                    if refused:
                        rejects.sync()
                    intake.keep(after)

            lines = [record.content for record in chunk if isinstance(record.content, Line)]
            take(intake, lines, repeats=repeats, settle=settle)
            done = after
            _tell(done, rejects, result)
            if source.scan:
                words = pace.words(done.line - began, source.scan.lines - began)
                report(done.line, f"{result.taken + result.refused:,} lines, {words}")
            else:
                report(source.position(), f"{result.taken + result.refused:,} lines")


def _reject(rejects: Rejects, chunk: list[Record], outcome: Outcome) -> int:
    refused = 0
    for record in chunk:
        reason = record.content if isinstance(record.content, str) else outcome.refused.get(record.number)
        if reason is not None:
            rejects.add(record, reason)
            refused += 1
    return refused


def _tell(done: Progress, rejects: Rejects, result: Result) -> None:
    _, result.created, result.updated, result.unchanged, result.refused, _ = done
    result.rejects = str(rejects.path) if done.refused else None


async def _board(redis_url: str) -> State | None:
    async with redis.connect_feed(redis_url) as client:
        return await Mirror(client).state()


async def _check_board(board: State | None, database_url: str) -> None:
    # Whoever follows an import replaces a board of another database: one wrong address must not take it from those who
    # use it.
    async with Feed(database_url) as feed:
        source = await feed.source()
    if board is not None and not succeeds(source, board.source):
        message = (
            f"REDIS_URL names the board of another database ({board.source}) than DATABASE_URL ({source}): correct that, or,"
            " if this is the right one, run scripts/reconcile.py --incremental --force first"
        )
        raise Unusable(message)


async def _wait_for_board(database_url: str, redis_url: str, changed: int) -> None:
    seconds = _BOARD_SECONDS + changed / _USERS_PER_SECOND
    try:
        with progress("Board", None) as report:
            async with redis.connect_feed(redis_url) as client, asyncio.timeout(seconds):
                tailer = Tailer(database_url, Mirror(client))
                await tailer.catch_up(progress=lambda users: report(users, f"{users:,} users"))
    except (TimeoutError, Unavailable) as error:
        reason = f"not within {seconds:.0f} s" if isinstance(error, TimeoutError) else str(error)
        message = f"Everything is in Postgres, but the board does not show all of it yet ({reason})"
        raise Unavailable(message) from error
