"""`ladder reconcile`: compare the board in Redis with the users in Postgres, and repair what differs."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from typing import Literal

import msgspec

from service import failpoints
from service.commands import stores
from service.commands.consent import foresee, require
from service.embedded import EmbeddedError
from service.errors import LadderError, Misconfigured, StoreBug, Unavailable, as_sentence, explain
from service.logs import configure
from service.progress import Pace, progress
from service.ranking.compaction import compact
from service.ranking.drift import DRIFTS, Outcome, Report
from service.ranking.loss import is_replaced
from service.ranking.rating_history import record
from service.ranking.rebase import rebase
from service.ranking.reconcile import LockBusy, Reconcile, admitted
from service.ranking.repair import NotSafe, Terms
from service.ranking.tail import Contested, Tailer
from service.settings import SettingsError, confirms_takeover
from service.store import redis
from service.store.feed import Feed
from service.store.history import succeeds
from service.store.inspection import Inspection
from service.store.mirror import Mirror, Refused, State
from service.store.rating_history import RatingHistory
from service.store.tombstones import Tombstones

_OK, _FAILED, _WRONG, _DRIFT, _BUSY, _AWAY, _REFUSED, _INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130
_FRESH_MS = 5_000
"""A board may lag so far behind and is still called up to date in a dry run."""
_STUCK_SECONDS = 60
"""How long another process that feeds the board may take to bring it up to date."""
_NICE = 5


def run(options: argparse.Namespace) -> int:
    """Reconcile and report; returns the exit code."""
    configure("warning")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    mode, task = _task(options)
    report = Report(mode=mode, dry_run=options.dry_run)
    try:
        failpoints.arm(os.environ)
        with ExitStack() as stack:
            database_url, redis_url = stack.enter_context(stores.chosen(options.data))
            # Services on this machine go first.
            os.nice(_NICE)
            options.may_empty = _may_empty(options, database_url, redis_url)
            is_complete = False
            try:
                report.exit = asyncio.run(task(options, report, database_url, redis_url))
                is_complete = True
            except _EXPECTED as error:
                _blame(error, report, options)
                # It compared nothing, so the last report on this board stays.
                if isinstance(error, LockBusy | NotSafe):
                    raise
            report.duration_ms = int((time.monotonic() - began) * 1000)
            if mode == "full" and not options.dry_run:
                asyncio.run(_leave(report, redis_url, is_complete=is_complete))
    except _EXPECTED as error:
        _blame(error, report, options)
    report.duration_ms = int((time.monotonic() - began) * 1000)
    _print(report, options)
    return report.exit


def _may_empty(options: argparse.Namespace, database_url: str, redis_url: str) -> bool:
    """Whether the board may lose more than a tenth of its users; asks if that is expected. Raises `NotSafe`."""
    mode, _ = _task(options)

    def concerns(source: str, state: State, is_empty: bool) -> bool:
        # What is of another history and not forced is refused later on.
        if mode == "incremental":
            return is_replaced(state, source) and (options.force or succeeds(source, state.source))
        if mode == "rebase":
            return succeeds(source, state.source)
        return not is_replaced(state, source) and (options.force or is_empty)

    foreseen = None
    try:
        foreseen = asyncio.run(foresee(database_url, redis_url, concerns))
    except Unavailable:
        # The history of ratings is written while Redis is away, and a pass that finds it back removes no tenth unasked.
        # A dump is also put back then.
        if mode == "incremental" or (mode == "rebase" and not options.yes):
            raise
    if foreseen:
        require(options, _INTENTS[mode], foreseen, redis_url)
    return bool(options.yes or (foreseen and foreseen.loss.is_large))


_INTENTS = {
    "incremental": "Loading the board anew from this database",
    "rebase": "Beginning another history, for which the board is loaded anew from this database",
    "full": "Removing users from the board that the database does not have",
}
_EXPECTED = (KeyboardInterrupt, SettingsError, LockBusy, Refused, NotSafe, EmbeddedError, LadderError, OSError)


def _blame(error: BaseException, report: Report, options: argparse.Namespace) -> None:
    """Say in the report what ended the run."""
    report.error = explain(error)
    match error:
        case KeyboardInterrupt():
            report.exit, report.error = _INTERRUPTED, "Interrupted"
        case SettingsError() | Misconfigured():
            report.exit = _WRONG
        case LockBusy():
            report.exit = _OK if options.lock_busy_ok else _BUSY
        case Refused():
            report.exit, report.error = _AWAY, "The board was started anew"
        case NotSafe():
            report.exit = _REFUSED
        case Unavailable() | EmbeddedError():
            report.exit = _AWAY
        case _:
            report.exit = _FAILED


async def _leave(report: Report, redis_url: str, *, is_complete: bool) -> None:
    """Leave the report, and whether all was compared, where the service finds it, for /metrics, if Redis takes it."""
    with suppress(LadderError):
        async with redis.connect_feed(redis_url) as client:
            now = time.time()
            completed_at = now if is_complete else None
            if completed_at is None and (raw := await Mirror(client).last_reconcile()) is not None:
                with suppress(msgspec.MsgspecError):
                    completed_at = msgspec.json.decode(raw, type=Outcome).completed_at
            await Inspection(client).leave(msgspec.json.encode(Outcome(report, now, completed_at)))


_Task = Callable[[argparse.Namespace, Report, str, str], Coroutine[None, None, int]]


def _task(options: argparse.Namespace) -> tuple[Literal["full", "incremental", "rebase"], _Task]:
    if options.rebase:
        return "rebase", _rebase
    return ("incremental", _incremental) if options.incremental else ("full", _full)


async def _full(options: argparse.Namespace, report: Report, database_url: str, redis_url: str) -> int:
    terms = Terms(options.dry_run, options.force, options.allow_rewind, options.may_empty)
    failure: LadderError | Refused | None = None if options.dry_run else await _keep(report, database_url)
    kept = (report.history_day, report.history_rows, report.history_purged)
    with progress("Compared", 100) as show:
        pace = Pace("users")

        def compared(done: int, total: int) -> None:
            show(100 * done // max(total, done, 1), pace.words(done, total))

        async with redis.connect_feed(redis_url) as client, Feed(database_url) as feed:
            work = Reconcile(feed, Mirror(client), Inspection(client), terms, progress=compared)
            try:
                await work.run()
                # Even if it fails the comparison is complete; the next run compacts.
                failure = await _compact(feed, Mirror(client), Inspection(client), work.report, database_url) or failure
            finally:
                for field in msgspec.structs.fields(Report):
                    setattr(report, field.name, getattr(work.report, field.name))
                report.history_day, report.history_rows, report.history_purged = kept
    if failure:
        _blame(failure, report, options)
    verdict = _verdict(report, report.found - report.raced + abs(report.miscount), fail=options.fail_on_drift)
    return verdict or report.exit


async def _keep(report: Report, database_url: str) -> LadderError | None:
    """Forget old keys and write the history; returns what went wrong, which is no reason not to compare."""
    try:
        async with Feed(database_url) as feed:
            source = await admitted(feed)
            # An error that left the session would leave the lock to the server, and the comparison asks for it at once.
            try:
                await feed.forget()
                with progress("History", None) as show:
                    await record(
                        RatingHistory(feed), report, source=source, progress=lambda rows: show(rows, f"{rows:,} rows")
                    )
            except (Unavailable, StoreBug) as error:
                return error
    except (Unavailable, StoreBug) as error:
        return error
    return None


async def _compact(
    feed: Feed, mirror: Mirror, inspection: Inspection, report: Report, database_url: str
) -> LadderError | Refused | None:
    """Compact both stores; returns what went wrong, which does not spoil the comparison."""
    tailer = Tailer(database_url, mirror)
    try:
        await compact(Tombstones(feed), mirror, inspection, report, source=report.src, catch_up=tailer.catch_up)
    except (Unavailable, StoreBug, Refused) as error:
        return error
    return None


async def _rebase(options: argparse.Namespace, report: Report, database_url: str, _: str) -> int:
    with progress("Rewritten", 100) as show:
        async with Feed(database_url) as feed:
            await rebase(
                feed,
                report,
                dry_run=options.dry_run,
                progress=lambda done, total: show(
                    100 * min(done, total) // max(total, 1), f"{done:,} of {total:,} users"
                ),
            )
    return _verdict(report, report.found, fail=options.fail_on_drift)


def _verdict(report: Report, drift: int, *, fail: bool) -> int:
    left = report.remaining or (report.dry_run and report.miscount)
    return _DRIFT if left or (fail and drift) else _OK


async def _incremental(options: argparse.Namespace, report: Report, database_url: str, redis_url: str) -> int:
    async with redis.connect_feed(redis_url) as client:
        mirror = Mirror(client)
        async with Feed(database_url) as feed:
            report.src = await feed.source()
        state = await mirror.state()
        # A running service does the same: a board of an earlier history may be replaced unasked.
        if state is not None and not succeeds(report.src, state.source) and not options.force:
            message = (
                f"the board mirrors another database ({state.source}) than DATABASE_URL names ({report.src}): correct"
                " that, or, if this is the right one, add --force"
            )
            raise NotSafe(message)
        if not options.dry_run:
            try:
                await _catch_up(
                    Tailer(database_url, mirror, confirms=confirms_takeover(os.environ)), force=options.force
                )
            except Contested as error:
                raise NotSafe(str(error)) from error
            state = await mirror.state()
        if state is None:
            return _DRIFT
        report.epoch, report.checked, report.lag_ms = state.epoch, state.users, state.lag_ms
        is_fresh = state.lag_ms is not None and state.lag_ms <= _FRESH_MS
        return _OK if state.ready and state.intact and is_fresh else _DRIFT


async def _catch_up(tailer: Tailer, *, force: bool) -> None:
    with progress("Board", None) as show:
        try:
            async with asyncio.timeout(_STUCK_SECONDS) as deadline:

                def brought(users: int) -> None:
                    show(users, f"{users:,} users")
                    # A load by this process may take any time while it makes progress.
                    if tailer.leading:
                        deadline.reschedule(asyncio.get_running_loop().time() + _STUCK_SECONDS)

                await tailer.catch_up(progress=brought, force=force)
        except TimeoutError as error:
            message = f"another process feeds the board and did not bring it up to date in {_STUCK_SECONDS} s"
            raise LockBusy(message) from error


def _print(report: Report, options: argparse.Namespace) -> None:
    if report.error:
        print(as_sentence(f"{options.program}: {report.error}"), file=sys.stderr)
    if options.json:
        print(msgspec.json.encode(report).decode())
        return
    if report.error and not report.checked:
        return
    if report.mode == "rebase":
        outcome = f"{report.stale:,} users of another cluster, {report.repaired:,} rewritten, {report.remaining:,} left"
        print(outcome if report.dry_run or report.error else f"{outcome}; another history has begun")
        return
    counts = ", ".join(f"{getattr(report, drift):,} {drift}" for drift in DRIFTS if getattr(report, drift))
    forgotten = max(report.tombstones_removed, report.mirror_tombstones_removed)
    outcome = f"{report.repaired:,} repaired, {report.raced:,} overtaken, {report.remaining:,} left"
    print(
        f"{report.checked:,} users, {f'{counts} ({outcome})' if counts else 'no drift'}"
        f"{f', size off by {report.miscount:,}' if report.miscount else ''}"
        f"{f', {forgotten:,} deleted users forgotten' if forgotten else ''}"
        f"{f', history of {report.history_day}: {report.history_rows:,} rows' if report.history_day else ''}"
        f", {report.duration_ms / 1000:.1f} s"
    )
