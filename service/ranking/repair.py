"""What looks wrong during a reconciliation: looked at again when it had time to come right, counted, repaired."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from service import failpoints
from service.model import Change, UserId, Version
from service.order import decode
from service.ranking.drift import DANGEROUS, Finding, Report, judge
from service.ranking.loss import is_large
from service.store.inspection import PEEK_IDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.store.feed import Feed
    from service.store.inspection import Inspection

T = TypeVar("T")

GRACE_SECONDS = 1.0
"""After this a write is in both stores: four polls of the tailer."""
ALARMING = 1000
"""So much drift is no write on its way: nobody waits any longer for each."""
MAX_OPEN = 5000
"""What may be waiting at once; then the scans wait too."""
LIMIT, LIMIT_SHARE = 1000, 0.01
"""Dangerous repairs that are made without being forced to: so many, or this share of the board."""
_LOOK_SECONDS = 0.02


class NotSafe(Exception):
    """Going on could destroy a good mirror; the message says why, and what may be done."""


class Terms(msgspec.Struct, frozen=True):
    """
    What a reconciliation may do: nothing; any number of repairs; setting users back to older versions.

    `may_empty`: whether the board may lose more than a tenth of its users.
    """

    dry_run: bool = False
    force: bool = False
    allow_rewind: bool = False
    may_empty: bool = False


class _Waiting(Generic[T]):
    """Items with the time from which each may be taken, in the order they came."""

    def __init__(self) -> None:
        self._items: deque[tuple[float, T]] = deque()

    def add(self, item: T, seconds: float) -> None:
        self._items.append((time.monotonic() + seconds, item))

    def take(self, limit: int) -> list[T]:
        taken: list[T] = []
        now = time.monotonic()
        while self._items and self._items[0][0] <= now and len(taken) < limit:
            taken.append(self._items.popleft()[1])
        return taken

    def __len__(self) -> int:
        return len(self._items)


class Repairs:
    """
    The suspects of one pass over the board of `epoch`, and what becomes of them, counted in `report`.

    `users` is how many the board has, `newest` a version that no user deleted before the pass can have.
    """

    def __init__(
        self,
        feed: Feed,
        inspection: Inspection,
        report: Report,
        terms: Terms,
        *,
        epoch: str,
        users: int,
        newest: Version,
        grace_seconds: float,
    ) -> None:
        self._feed, self._inspection = feed, inspection
        self._report, self._terms = report, terms
        self._epoch, self._newest = epoch, newest
        self._users = users
        self._limit = max(LIMIT, int(users * LIMIT_SHARE))
        self._grace_seconds = grace_seconds
        self._suspects: _Waiting[tuple[UserId, Version | None]] = _Waiting()
        self._members: _Waiting[bytes] = _Waiting()
        self._held_back: list[Finding] = []

    @property
    def open(self) -> int:
        """What is not decided yet, or not repaired yet: known to this process alone."""
        return len(self._suspects) + len(self._members) + len(self._held_back)

    def suspect(self, user_id: UserId, change: Change | None) -> None:
        """A user of whom Postgres said `change`, and the mirror, asked before, something else."""
        self._suspects.add((user_id, change.version if change else None), self._grace())

    def suspect_member(self, member: bytes) -> None:
        """A member of the board that its user does not vouch for."""
        self._members.add(member, self._grace())

    def _grace(self) -> float:
        return self._grace_seconds if self._report.found < ALARMING else 0

    async def look_again(self) -> None:
        """Decide about everyone who has waited long enough, and wait if there are too many."""
        while True:
            suspects = dict(self._suspects.take(PEEK_IDS))
            members = self._members.take(PEEK_IDS)
            if suspects:
                await self._confirm(suspects)
            elif members:
                await self._exorcise(members)
            elif len(self._suspects) + len(self._members) > MAX_OPEN:
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                return

    async def close(self) -> None:
        """Decide about everyone, then make the repairs that were held back. Takes a second at most to begin."""
        while self._suspects or self._members:
            await self.look_again()
            await asyncio.sleep(_LOOK_SECONDS)
        held_back, self._held_back = self._held_back, []
        await self._repair(held_back)

    async def _confirm(self, suspects: dict[UserId, Version | None]) -> None:
        entries = await self._inspection.peek(list(suspects), epoch=self._epoch)
        await failpoints.reach("reconcile_after_peek")
        changes = await self._feed.users(list(suspects))
        await failpoints.reach("reconcile_after_select")
        safe = []
        for user_id, seen in suspects.items():
            entry = entries[user_id]
            finding = judge(user_id, entry, changes.get(user_id), newest=self._newest)
            if finding is None:
                continue
            if finding.drift == "stale" and seen is not None and (entry.version or 0) >= seen:
                # What was missed before has come; what is newer still is on its way.
                continue
            self._report.count([finding.drift])
            if finding.drift not in DANGEROUS:
                safe.append(finding)
            elif finding.drift == "orphan" or self._terms.allow_rewind:
                self._held_back.append(finding)
        self._check_limit()
        if self._terms.dry_run:
            # Nobody will ask for them, and there may be as many as users.
            self._held_back.clear()
        await self._repair(safe)

    def _check_limit(self) -> None:
        # Nothing dangerous is repaired before the whole mirror has been seen: a wrong or emptied database must
        # not cost a single user.
        if self._report.orphan + self._report.ahead > self._limit and not (self._terms.force or self._terms.dry_run):
            message = (
                f"more than {self._limit:,} users of the mirror are missing from this Postgres, or older in it: see"
                " whether it is the right one and complete; --force repairs them all the same"
            )
            raise NotSafe(message)
        # Asked for before the pass; here the database has lost them since.
        may_go_on = self._terms.may_empty or self._terms.dry_run
        if self._terms.force and is_large(self._report.orphan, self._users) and not may_go_on:
            message = "more than a tenth of the users of the mirror are missing from this Postgres: this needs --yes"
            raise NotSafe(message)

    async def _repair(self, findings: Sequence[Finding]) -> None:
        if not findings or self._terms.dry_run:
            return
        await failpoints.reach("reconcile_before_fix")
        applied = await self._inspection.fix([finding.fix for finding in findings], epoch=self._epoch)
        self._report.repaired += sum(applied)
        self._report.raced += len(applied) - sum(applied)

    async def _exorcise(self, members: Sequence[bytes]) -> None:
        members = await self._inspection.strangers(members, epoch=self._epoch)
        names = {member: decode(member.decode(errors="replace")) for member in members}
        changes = await self._feed.users([user_id for _, user_id in names.values()])
        ghosts = []
        for member, (username, user_id) in names.items():
            change = changes.get(user_id)
            # Whose name it is in Postgres is counted as what is wrong with that user.
            if change is None or change.username != username:
                ghosts.append(member)
        self._report.count("ghost" for _ in ghosts)
        if ghosts and not self._terms.dry_run:
            removed = await self._inspection.remove_ghosts(ghosts, epoch=self._epoch)
            self._report.repaired += removed
            self._report.raced += len(ghosts) - removed
