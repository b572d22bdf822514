"""
Incremental reconciliation: follow what Postgres commits and heal the mirror, a few times a second.

Runs in every API process; the one that holds an advisory lock works, the others stand by. The lock only
saves work. What makes it safe is in Redis: the checkpoint lives beside the data and moves in the same step,
guarded by a token chain, so a Redis that fell back to an older state has lost its checkpoint too and the
tail replays exactly the gap. Each cycle starts from what Redis says, never from what this process
remembers.

A board that is missing, damaged, of another layout or of an earlier history of the same Postgres is loaded anew;
it is `ready` only when the load and the tail behind it are through. A board of another database is left alone, and one
that another history still feeds is, too (`vacancy`).
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, TypeGuard

import structlog

from service import failpoints, metrics
from service.checkout import RECONCILE
from service.errors import LadderError, Misconfigured, NoSuchDatabase, Unavailable, explain
from service.ranking.load import load
from service.ranking.vacancy import Vacancy
from service.store.feed import Feed
from service.store.history import ANY_SOURCE, NO_SOURCE, History, succeeds
from service.store.keys import LAYOUT
from service.store.mirror import Feeding, Refused, board_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.store.mirror import Mirror, State

POLL_SECONDS = 0.25
STANDBY_SECONDS = 1.0
EXAMINE_SECONDS = 30.0
"""How often Redis is asked for its settings; every second while they forbid a mirror."""
TAIL_ROWS = 1000
"""Changes in one SELECT of the tail."""

_log = structlog.get_logger(__name__)


class Withheld(Unavailable):
    """Nothing is fed until an operator decides; the message says what to decide."""


class Contested(Withheld):
    """The board belongs to another history of the same database, which may still be the right one."""


class Tailer:
    """
    Keeps one mirror equal to one database.

    `source` is the history that its own session leads to, which it loads and tails. `believed` is the history that a
    board must have to be read: the one that any connection of this process saw last, kept in `history`. Before Postgres
    has been asked it matches no board. If Postgres cannot be reached from the start, it matches any (""), because there
    is nothing to compare with. `withheld` is why the board may not be used until an operator decides, "" if it may.
    `interrupted` is why the last attempt to follow failed, "" if it did not. With `confirms` a board of another history is
    never replaced without an operator.
    """

    def __init__(
        self, database_url: str, mirror: Mirror, *, history: History | None = None, confirms: bool = False
    ) -> None:
        self._database_url = database_url
        self._mirror = mirror
        self._history = history or History()
        self._confirms = confirms
        self._vacancy = Vacancy()
        self._token = ""
        self.source = NO_SOURCE
        self.leading = False
        self._reported = ""
        self.withheld = self.interrupted = ""
        self._warned: set[str] = set()
        self._examined_at = -math.inf
        self._examined_run = ""

    @property
    def believed(self) -> str:
        """The history whose board may be read now."""
        return NO_SOURCE if self.withheld else self._history.source

    async def run(self) -> None:
        """Follow for ever; a store that is away is tried again. End it by cancelling."""
        while True:
            try:
                async with Feed(self._database_url) as feed:
                    self._history.is_shared = False
                    await self._follow(feed)
            except LadderError as error:
                # A Redis without this database says nothing about the way to Postgres.
                is_shared = isinstance(error, Misconfigured) and not isinstance(error, NoSuchDatabase)
                self._history.is_shared = is_shared
                # Only without Postgres is there nothing to compare the board with. A shared session answers, and may
                # lead to a database of another history.
                if self._history.source == NO_SOURCE and isinstance(error, Unavailable) and not is_shared:
                    self._history.source = ANY_SOURCE
                self.interrupted = str(error)
                self._report(error)
            except Exception as error:  # noqa: BLE001  a defect must not end the healing of everything else
                self._report_defect(error)
            finally:
                self.leading = False
                metrics.TAIL_LEADING.set(0)
            await asyncio.sleep(POLL_SECONDS)

    def _report(self, error: LadderError) -> None:
        # Once per reason: a store that is away for an hour is not news every second.
        if (reason := explain(error)) != self._reported:
            self._reported = reason
            event = "mirror.withheld" if isinstance(error, Withheld) else "tail.interrupted"
            (_log.error if isinstance(error, Contested) else _log.warning)(event, reason=self._reported)

    def _report_defect(self, error: Exception) -> None:
        # Once per reason, too: a server that answers nonsense makes every cycle fail in the same way.
        if (reason := repr(error)) != self._reported:
            self._reported = reason
            _log.error("tail.failed", exc_info=error)

    async def _follow(self, feed: Feed) -> None:
        while True:
            self.source = self._history.source = await feed.adopt()
            self.leading = self.leading or await feed.try_lock()
            metrics.TAIL_LEADING.set(self.leading)
            try:
                # By each process: a board that may lose users at any time must not be read by any.
                if self.withheld or time.monotonic() - self._examined_at >= EXAMINE_SECONDS:
                    await self._examine_redis()
                if self.leading:
                    await self.cycle(feed)
                    self._reported = ""
                self.withheld = self.interrupted = ""
            except Withheld as error:
                self.withheld = str(error)
                self._report(error)
                await asyncio.sleep(STANDBY_SECONDS)
            else:
                await asyncio.sleep(POLL_SECONDS if self.leading else STANDBY_SECONDS)

    async def catch_up(self, *, progress: Callable[[int], None] = lambda _: None, force: bool = False) -> None:
        """
        Return when everything that is committed now is on the board, no matter which process brings it there.

        A board of another database is replaced: the caller has made sure that this database is the right one. A board
        that another history of this database feeds is replaced only with `force`, else `Contested` is raised.
        `progress` is called with the number of users on the board. Raises `Unavailable`; set a deadline around it,
        because another process may lead and be stuck.
        """
        async with Feed(self._database_url) as feed:
            # The lock went with the session that held it.
            self.leading = False
            self.source = await feed.adopt()
            state = await self._mirror.state()
            asked = state
            while True:
                # Also keeps the session from falling silent, which would end it.
                self.leading = self.leading or await feed.try_lock()
                # A leading service leaves another database's board alone, and feeds it once it belongs to this one.
                is_left = state is not None and not succeeds(self.source, state.source)
                is_forced = force and state is not None and state.source != self.source
                if self.leading or is_left or is_forced:
                    await self.cycle(feed, progress=progress, any_board=True, force=force)
                state = await self._mirror.state()
                if state is not None:
                    progress(state.users)
                    if asked is None or asked.run != state.run:
                        # Times of two servers' clocks cannot be compared.
                        asked = state
                    elif state.ready and self._usable(state) and state.applied_since(asked.now_ms):
                        return
                await asyncio.sleep(POLL_SECONDS / 5)
                # The drivers' own timeouts may swallow a cancellation; then the caller's deadline would never take effect.
                if (task := asyncio.current_task()) and task.cancelling():
                    raise asyncio.CancelledError

    async def cycle(
        self,
        feed: Feed,
        *,
        progress: Callable[[int], None] = lambda _: None,
        any_board: bool = False,
        force: bool = False,
    ) -> None:
        """
        Bring the board up to date once: load it if it must be, then everything committed since.

        Raises `Withheld` if that must not be, as for the board of another database unless `any_board` may go. Does
        nothing while it is not known yet whether another history feeds the board, unless `force`.
        """
        try:
            state = await self._mirror.state()
            if state is not None and self._examined_run not in ("", state.run):
                # Another server has taken over, with settings of its own. It must not be stamped before they are
                # examined: until then its lag is unknown, and no rank is read from it.
                await self._examine_redis()
            purged = await self._check_clock(feed, state)
            if not self._usable(state) or int(state.checkpoint.xact) < purged:
                if state is not None and not (any_board or succeeds(self.source, state.source)):
                    message = (
                        f"the board mirrors another database ({state.source}) than DATABASE_URL names ({self.source}),"
                        f" and is left alone: correct that, or run {RECONCILE} --incremental --force"
                    )
                    raise Withheld(message)
                if not (force or self._may_take(state)):
                    return
                await self._examine_redis()
                state = await self._begin(feed, state)
            token = state.token
            if not state.ready:
                token = await load(feed, self._mirror, state, progress)
            await self._settle(feed, state, token)
            metrics.TAIL_CYCLES.inc()
        except Refused:
            # Redis fell back, was flushed, or another process feeds it: the next cycle asks it what it has.
            metrics.TAIL_REFUSED.inc()
            _log.info("tail.refused")

    def _may_take(self, state: State | None) -> bool:
        """Whether a board may be loaded anew now, False when a later look tells; raises `Contested`."""
        if state is not None and state.source == self.source:
            return True
        way_on = f"if it is the one to go on, run {RECONCILE} --incremental --force"
        if self._confirms and state is not None:
            message = (
                f"the board mirrors another history ({state.source}) than DATABASE_URL leads to ({self.source}), and"
                f" BOARD_TAKEOVER is confirm: {way_on}"
            )
            raise Contested(message)
        # Nothing has fed it since this process did: its own database failed over.
        if state is not None and self._token == state.token:
            return True
        if self._vacancy.look(state):
            return True
        if self._vacancy.is_fed:
            message = (
                f"another history of this database ({self._vacancy.source}) feeds the board, and DATABASE_URL leads to"
                f" ({self.source}), perhaps a copy: give a copy a Redis of its own; {way_on}"
            )
            raise Contested(message)
        return False

    async def _examine_redis(self) -> None:
        """Make sure that Redis is set as a mirror must be; raises `Withheld`. Each warning is logged once."""
        try:
            verdict = await self._mirror.verdict()
        except Unavailable as error:
            if not self.leading:
                # It may be hours before a request of this process asks Redis.
                self._report(error)
            self._examined_at = time.monotonic() - EXAMINE_SECONDS + STANDBY_SECONDS
            if self.withheld:
                raise
            return
        self._examined_at = time.monotonic()
        self._examined_run = verdict.run
        if verdict.refusal:
            raise Withheld(verdict.refusal)
        if not self.leading:
            self._reported = ""
        for warning in verdict.warnings:
            if self.leading and warning not in self._warned:
                self._warned.add(warning)
                _log.warning("redis.settings", reason=warning)

    async def _check_clock(self, feed: Feed, state: State | None) -> int:
        """
        Make sure that the order of transactions can be followed; raises `Withheld` if rows contradict it.

        Returns the transaction that a checkpoint must have reached, because tombstones below it were removed: a board
        with an earlier checkpoint would keep deleted users, and is loaded anew.

        A Postgres that is behind its own board, because an earlier copy of it was put back without a trace, is
        another history, and is given a new name. Called after the board was read, because the horizon only rises.
        """
        horizon, is_foreign, purged = await feed.clock()
        if is_foreign:
            message = (
                "users claim transactions that this Postgres has yet to begin, as after the restore of a dump, so"
                f" their changes cannot be followed: run {RECONCILE} --rebase"
            )
            raise Withheld(message)
        if self._usable(state) and int(state.checkpoint.xact) > horizon:
            _log.warning("postgres.went_back", horizon=horizon, checkpoint=state.checkpoint.xact)
            await feed.disown(self.source)
            self.source = self._history.source = await feed.adopt()
        return purged

    def _usable(self, state: State | None) -> TypeGuard[State]:
        return (
            state is not None
            and state.layout == str(LAYOUT)
            and state.source == self.source
            and state.intact
            and state.checkpoint.xact.isdecimal()
        )

    async def _begin(self, feed: Feed, seen: State | None) -> State:
        # Taken before the load reads its first row: what commits from here on is the tail's to bring.
        checkpoint, floor = await feed.origin()
        await self._mirror.begin(seen=seen, source=self.source, checkpoint=checkpoint, floor=floor)
        begun = await self._mirror.state()
        if not self._usable(begun):
            raise Refused
        metrics.LOADS_BEGUN.inc()
        _log.info("mirror.load_begun", source=self.source, was=None if seen is None else seen.source)
        return begun

    async def _settle(self, feed: Feed, state: State, token: str) -> None:
        """
        Apply everything that was committed when `state` was read, and say so.

        First what is above the horizon, then what is below: the horizon only rises, so together they
        leave no gap. In the other order a transaction that ends between the two would be in neither.
        """
        news = 0
        checkpoint, drained = state.checkpoint, False
        while not drained:
            changes, checkpoint, drained = await feed.unsettled(checkpoint, limit=TAIL_ROWS)
            if changes:
                await failpoints.reach("tail_after_query")
                applied, token = await self._mirror.feed(Feeding(board_rows(changes)), epoch=state.epoch, token=token)
                await failpoints.reach("tail_after_apply")
                news += applied
        checkpoint, drained = state.checkpoint, False
        while not drained:
            changes, checkpoint, drained = await feed.changes(checkpoint, limit=TAIL_ROWS)
            # The clock was Redis's own, read before the first query: however long this took, every commit
            # older than that is now on the board. An idle batch says so too; it also moves the token. If another
            # server takes the batch, because Redis failed over meanwhile, it learns that the clock was not its own.
            feeding = (
                Feeding(board_rows(changes), checkpoint=checkpoint, applied_ms=state.now_ms, run=state.run, ready=True)
                if drained
                else Feeding(board_rows(changes), checkpoint=checkpoint)
            )
            if changes:
                await failpoints.reach("tail_after_query")
            applied, token = await self._mirror.feed(feeding, epoch=state.epoch, token=token)
            if changes:
                await failpoints.reach("tail_after_apply")
            news += applied
        self._token = token
        metrics.TAIL_ROWS.inc(news)
        if news:
            _log.info("tail.healed", rows=news)
