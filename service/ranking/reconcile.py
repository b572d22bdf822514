"""
Full reconciliation: compare every user in the mirror with Postgres and put right what differs, while both
are in use.

Three loops: whom Postgres has must be in the mirror, and just so; whom the mirror holds must be in Postgres;
whom the board shows must be in the mirror. They only say who looks wrong. A moment later, when a write that was
on its way from one store to the other has arrived, those are read again, Redis first and Postgres second (see
`judge`), and a repair replaces exactly what was seen.

Memory is two batches and what is waiting. Every now and then the process sleeps for a share of the time it has
worked: the slower the stores answer, because others use them, the longer they are left alone.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
import structlog

from service.errors import NoSchema, NotReady, StoreBug, Unavailable
from service.ranking.drift import Report
from service.ranking.repair import GRACE_SECONDS, NotSafe, Repairs, Terms
from service.store.feed import RECONCILE_LOCK
from service.store.keys import LAYOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sized

    from service.model import Change, UserId
    from service.store.feed import Feed
    from service.store.inspection import Inspection
    from service.store.mirror import Mirror, State

B = TypeVar("B", bound="Sized")

DUTY = 0.9
"""Share of the time that is spent working, at most: a million users take less than 20 s beside a service."""
PAGES = 20
"""Of the users' table in one SELECT: some two thousand users."""
LOOPS = ("rows", "users", "board", "end")
_BEGINNING = "0"
_NOTE_SECONDS = 1.0
_REST_SECONDS = 0.05
"""No rest is shorter: on a busy machine each costs some milliseconds more until it is our turn again."""

_log = structlog.get_logger(__name__)


class Batch(msgspec.Struct, Generic[B]):
    """Some of what a loop walks, and the place behind it."""

    items: B
    next_place: str
    is_last: bool


class LockBusy(Exception):
    """Somebody else does it already; the message says what."""


async def admitted(feed: Feed) -> str:
    """Be the only reconciliation until the session ends, on a primary; returns the source. `LockBusy`, `NotSafe`."""
    if not await feed.try_lock(RECONCILE_LOCK):
        message = "another reconciliation is running"
        raise LockBusy(message)
    try:
        return await feed.source()
    except NoSchema:
        raise
    except StoreBug as error:
        message = "this Postgres does not say which history it is: it must be the primary"
        raise NotSafe(message) from error


class Note(msgspec.Struct):
    """How far a reconciliation is. Another run goes on from there if all but the place and the report are equal."""

    source: str
    epoch: str
    server: str
    file: str
    terms: Terms
    loop: str
    place: str
    report: Report

    def continues(self, other: Note) -> bool:
        """Whether this run may go on where the other one was."""
        mine = (self.source, self.epoch, self.server, self.file, self.terms)
        return mine == (other.source, other.epoch, other.server, other.file, other.terms)


class Reconcile:
    """
    One pass over one mirror and one database, within `terms`.

    `progress` is called after every batch with users and members compared so far, and about how many there are.
    """

    def __init__(
        self,
        feed: Feed,
        mirror: Mirror,
        inspection: Inspection,
        terms: Terms,
        *,
        duty: float = DUTY,
        grace_seconds: float = GRACE_SECONDS,
        progress: Callable[[int, int], None] = lambda _, __: None,
    ) -> None:
        self._feed, self._mirror, self._inspection = feed, mirror, inspection
        self._terms = terms
        self._duty, self._grace_seconds = duty, grace_seconds
        self._progress = progress
        self._users = self._done = 0
        self._noted = self._rested = self._marked = 0.0
        self.report = Report(run_id=secrets.token_hex(4), dry_run=terms.dry_run)

    async def run(self) -> Report:
        """
        Compare and repair everything; returns the report, which is also kept up to date in `report`. O(n log n).

        Raises `LockBusy`, `NotSafe`; `Unavailable` when a store cannot answer, and `Refused` when the board was
        started anew. Whatever ended it, another run goes on where this one was if the board is still the same.
        """
        began = time.monotonic()
        try:
            state = await self._admitted()
            self._users = state.users
            note = await self._begun(state)
            _, newest = await self._feed.origin()
            repairs = Repairs(
                self._feed,
                self._inspection,
                self.report,
                self._terms,
                epoch=state.epoch,
                users=state.users,
                newest=newest,
                grace_seconds=self._grace_seconds,
            )
            await self._mark()
            self._rested = time.monotonic()
            checks = {"rows": self._check_rows, "users": self._check_users, "board": self._check_board}
            for loop, following in pairwise(LOOPS):
                if note.loop == loop:
                    await checks[loop](note, repairs)
                    await self._enter(following, note, repairs)
            await self._finish(note)
        finally:
            self.report.remaining = self.report.found - self.report.repaired - self.report.raced
            self.report.duration_ms = int((time.monotonic() - began) * 1000)
        return self.report

    async def _admitted(self) -> State:
        source = await admitted(self._feed)
        state = await self._mirror.state()
        if state is None or state.layout != str(LAYOUT):
            message = "there is no board to compare; a service, or --incremental, loads one"
            raise NotReady(message)
        self.report.epoch, self.report.src, self.report.lag_ms = state.epoch, source, state.lag_ms
        if state.source != source:
            message = (
                f"the board mirrors another database ({state.source}) than DATABASE_URL names ({source}): correct that, or,"
                " if this is the right one, run --incremental --force"
            )
            raise NotSafe(message)
        if not state.ready:
            message = "the board is still being loaded"
            raise NotReady(message)
        return state

    async def _begun(self, state: State) -> Note:
        """Return where the last run was if it did not end and can be gone on with, else the beginning."""
        server = await self._inspection.server()
        file, _ = await self._feed.heap()
        note = Note(state.source, state.epoch, server, file, self._terms, LOOPS[0], _BEGINNING, self.report)
        raw = await self._inspection.note()
        if raw is not None:
            try:
                last = msgspec.json.decode(raw, type=Note)
            except msgspec.MsgspecError:
                _log.warning("reconcile.note_unreadable")
            else:
                if note.continues(last):
                    _log.warning("reconcile.resumed", run_id=last.report.run_id, at=last.report.next_id)
                    self.report = last.report
                    self._done = LOOPS.index(last.loop) * self._users
                    return last
        self.report.miscount = await self._inspection.miscount(epoch=state.epoch)
        return note

    async def _check_rows(self, note: Note, repairs: Repairs) -> None:
        """Whom Postgres has, the mirror must hold, and just so."""

        async def read(place: str) -> Batch[list[Change]]:
            first = int(place)
            file, pages = await self._feed.heap()
            if file != note.file:
                message = "the table of users was rewritten: the places of its rows mean nothing any more"
                raise Unavailable(message)
            return Batch(await self._feed.rows(first, first + PAGES), str(first + PAGES), first + PAGES >= pages)

        async for batch in self._batches(note, repairs, read):
            for change in await self._inspection.differing(batch.items, epoch=note.epoch):
                repairs.suspect(change.id, change)
            self.report.checked += len(batch.items)

    async def _check_users(self, note: Note, repairs: Repairs) -> None:
        """Whom the mirror holds, Postgres must have."""

        async def read(place: str) -> Batch[list[UserId]]:
            place, ids = await self._inspection.scan_users(place, epoch=note.epoch)
            return Batch(ids, place, place == _BEGINNING)

        async for batch in self._batches(note, repairs, read):
            present = await self._feed.present(batch.items)
            for user_id in batch.items:
                if user_id not in present:
                    repairs.suspect(user_id, None)

    async def _check_board(self, note: Note, repairs: Repairs) -> None:
        """Whom the board shows, some user must be."""

        async def read(place: str) -> Batch[list[bytes]]:
            place, members = await self._inspection.scan_board(place, epoch=note.epoch)
            return Batch(members, place, place == _BEGINNING)

        async for batch in self._batches(note, repairs, read):
            for member in await self._inspection.unvouched(batch.items, epoch=note.epoch):
                repairs.suspect_member(member)

    async def _batches(
        self, note: Note, repairs: Repairs, read: Callable[[str], Coroutine[None, None, Batch[B]]]
    ) -> AsyncIterator[Batch[B]]:
        """Read from the note's place on; while one batch is compared with one store, the other reads the next."""
        reading = asyncio.create_task(read(note.place))
        try:
            is_last = False
            while not is_last:
                batch = await reading
                is_last = batch.is_last
                if not is_last:
                    reading = asyncio.create_task(read(batch.next_place))
                yield batch
                await self._step(note, repairs, batch)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _step(self, note: Note, repairs: Repairs, batch: Batch[B]) -> None:
        """Decide what is due, note the place, and now and then leave the stores alone for a while."""
        note.place = batch.next_place
        self._done += len(batch.items)
        self._progress(self._done, 3 * self._users)
        await self._mark()
        await repairs.look_again()
        # What is open is known to this process alone: whoever goes on must come across it again. And the place
        # behind the last batch of a scan is the one before the first.
        if not repairs.open and not batch.is_last and time.monotonic() - self._noted >= _NOTE_SECONDS:
            await self._take(note)
        rest = (time.monotonic() - self._rested) * (1 / self._duty - 1)
        if rest >= _REST_SECONDS:
            await asyncio.sleep(rest)
            self._rested = time.monotonic()

    async def _mark(self) -> None:
        """
        Have it known that a board is being repaired.

        A user who is put back beside a stranger makes the board larger than the users hash. That is the mark of a board
        that has lost this hash, and a tailer would load everything anew in the middle of the repair.
        """
        if not self._terms.dry_run and time.monotonic() - self._marked >= _NOTE_SECONDS:
            await self._inspection.mark_repair()
            self._marked = time.monotonic()

    async def _enter(self, loop: str, note: Note, repairs: Repairs) -> None:
        await repairs.close()
        note.loop, note.place = loop, _BEGINNING
        await self._take(note)
        self._done = LOOPS.index(loop) * self._users
        self._rested = time.monotonic()

    async def _take(self, note: Note) -> None:
        if await self._inspection.server() != note.server:
            message = "Redis was restarted or replaced: the places of its scans mean nothing any more"
            raise Unavailable(message)
        self.report.next_id = f"{note.loop}:{note.place}"
        await self._inspection.take_note(msgspec.json.encode(note))
        self._noted = time.monotonic()

    async def _finish(self, note: Note) -> None:
        miscount = self.report.miscount
        await self._inspection.drop_note()
        if not self._terms.dry_run and not await self._inspection.resync(miscount, epoch=note.epoch):
            message = "members of the board were lost or added by hand meanwhile"
            raise Unavailable(message)
        state = await self._mirror.state()
        self.report.lag_ms = state.lag_ms if state else None
        self.report.next_id = ""
