"""What can be wrong with a user in the mirror, how it is put right, and the report that counts it; pure."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from service.model import Change, UserId, Version
from service.store.inspection import Entry, Fix

if TYPE_CHECKING:
    from collections.abc import Iterable

Drift = Literal["missing", "stale", "ahead", "orphan", "corrupt", "ghost"]
"""
missing   the mirror has never heard of the user
stale     it holds an older version
ahead     it holds a version that Postgres has not: Postgres was set back
orphan    it holds a user that Postgres has not
corrupt   it holds the right version with another rating or name, or without a place on the board
ghost     the board has a member that no user vouches for
"""

DRIFTS: tuple[Drift, ...] = get_args(Drift)
DANGEROUS: frozenset[Drift] = frozenset({"ahead", "orphan"})
"""Repaired by removing or setting back: many of them mean that Postgres is the one that is wrong."""


class Finding(msgspec.Struct, frozen=True):
    """Something wrong, and its repair."""

    drift: Drift
    fix: Fix


class Report(msgspec.Struct):
    """What a reconciliation found and did; the line of JSON that the script prints."""

    run_id: str = ""
    mode: Literal["full", "incremental", "rebase"] = "full"
    dry_run: bool = False
    epoch: str = ""
    src: str = ""
    checked: int = 0
    """Users that both stores have."""
    missing: int = 0
    stale: int = 0
    ahead: int = 0
    orphan: int = 0
    corrupt: int = 0
    ghost: int = 0
    miscount: int = 0
    """Members that the board expected beyond those it had, before anything was repaired."""
    repaired: int = 0
    raced: int = 0
    """Something newer had come when it was to be repaired."""
    next_id: str = ""
    """Where the next run goes on if this one did not end."""
    lag_ms: int | None = None
    remaining: int = 0
    """Found, and neither repaired nor overtaken."""
    history_day: date | None = None
    """The day of the history of ratings that was written."""
    history_rows: int = 0
    """Rows of it that were written or taken back; those that were right already are not counted."""
    history_purged: int = 0
    """Rows that were too old."""
    tombstones: int = 0
    """Deleted users that Postgres remembers, at the end."""
    mirror_tombstones: int = 0
    """Deleted users that the mirror remembers, at the end."""
    tombstones_removed: int = 0
    mirror_tombstones_removed: int = 0
    """Those that a compaction forgot."""
    duration_ms: int = 0
    error: str | None = None
    exit: int = 0

    @property
    def found(self) -> int:
        """Users and members that were wrong."""
        return sum(getattr(self, drift) for drift in DRIFTS)

    def count(self, drifts: Iterable[Drift]) -> None:
        """Count what was found."""
        for drift in drifts:
            setattr(self, drift, getattr(self, drift) + 1)


class Outcome(msgspec.Struct):
    """
    How the last full reconciliation ended, for those who watch.

    Kept in Redis beside the board it is about: a board that is lost takes it along, and rightly so. Both times are
    seconds of Unix time; `completed_at` is when one last compared everything, None if that is not known.
    """

    report: Report
    ended_at: float
    completed_at: float | None


def judge(user_id: UserId, entry: Entry, change: Change | None, *, newest: Version) -> Finding | None:
    """
    Return what is wrong with a user; `entry` must have been read before `change`.

    Redis only ever holds what was committed, so a reading of Postgres made later shows the same version, a
    newer one, or none because the user is deleted. In the other order a user created in between would look
    like an orphan. `newest` is a version that no user who is already deleted can have.
    """
    version = entry.version
    if change is None:
        if not entry.held or entry.is_gone:
            return None
        gone = Change(user_id, newest if version is None else version, None, None)
        return Finding("orphan", Fix(gone, version))
    if version is None:
        return Finding("corrupt" if entry.held else "missing", Fix(change, None))
    if version < change.version:
        return Finding("stale", Fix(change, None))
    if version > change.version:
        return Finding("ahead", Fix(change, version))
    return None if entry.shows(change) else Finding("corrupt", Fix(change, version))
