"""
Compaction: both stores forget a deleted user once no write or repair under way can bring the user back.

A deletion leaves its version in both stores. In the mirror it refuses a write of the user that arrives late; in Postgres
it tells a mirror that fell back that the user is gone. Neither may go one by one (docs/decisions/0019-compaction.md).
In this order:

1. a version is drawn and a transaction begun before which every write of a version up to it has;
2. the board's checkpoint is past that transaction, and once more everything was applied after that;
3. in one step the board begins a new epoch, and refuses unknown users up to that version from then on;
4. the fields of deleted users go; batches and repairs of the old epoch, which may still hold one, are refused;
5. Postgres notes below which transaction tombstones go: a board whose checkpoint is before it is loaded anew;
6. the tombstones go.

The board can be read throughout. A compaction may be ended at any point; the next one does the rest.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from service import failpoints
from service.store.mirror import Refused
from service.store.tombstones import PURGE_ROWS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.ranking.drift import Report
    from service.store.inspection import Inspection
    from service.store.mirror import Mirror
    from service.store.tombstones import Settled, Tombstones

MANY = 10_000
SHARE = 0.1
"""Deleted users that either store may remember: this number, or this share of all users if that is more."""
DAYS = 14
"""How long a deleted user may be remembered at most; a few of them are no reason to compact each night."""
SETTLE_SECONDS = 10.0
"""How long to wait for open transactions and for the tail; after that the next run compacts."""
_LOOK_SECONDS = 0.05
_CATCH_UP_SECONDS = 3.0
"""Less than the silence after which the server ends our session."""
_DUTY = 0.9

_log = structlog.get_logger(__name__)


async def compact(
    tombstones: Tombstones,
    mirror: Mirror,
    inspection: Inspection,
    report: Report,
    *,
    source: str,
    catch_up: Callable[[], Awaitable[None]],
    settle_seconds: float = SETTLE_SECONDS,
) -> None:
    """
    Compact if a store remembers many deleted users, or one for long; counts what is left and removed in `report`.

    `catch_up` returns when everything that was committed when it was called is on the board. Needs the lock of the
    reconciliation. Raises `Unavailable`, and `Refused` when the board is not one of `source` or was started anew
    meanwhile. O(n) of Redis' users, in small steps, and O(tombstones).
    """
    state = await mirror.state()
    if state is None or not state.ready or state.source != source:
        raise Refused
    report.tombstones, is_old = await tombstones.count(days=DAYS)
    report.mirror_tombstones = state.known - state.users
    limit = max(MANY, int(state.users * SHARE))
    if report.dry_run or not (is_old or max(report.tombstones, report.mirror_tombstones) > limit):
        return
    settled = await tombstones.present()
    epoch = await _begun(tombstones, mirror, state.epoch, settled, catch_up, seconds=settle_seconds)
    if epoch is None:
        _log.warning("compaction.postponed", reason="a transaction is open, or the board is not fed", xact=settled.xact)
        return
    await failpoints.reach("compaction_after_begin")
    await _sweep(tombstones, inspection, report, epoch)
    await tombstones.announce(settled, source=source)
    await failpoints.reach("compaction_after_announcement")
    removed = PURGE_ROWS
    while removed:
        began = time.monotonic()
        removed = await tombstones.purge(settled)
        report.tombstones_removed += removed
        report.tombstones = max(report.tombstones - removed, 0)
        await _rest(began)


async def _begun(
    tombstones: Tombstones,
    mirror: Mirror,
    epoch: str,
    settled: Settled,
    catch_up: Callable[[], Awaitable[None]],
    *,
    seconds: float,
) -> str | None:
    """Begin the new epoch as soon as the version is settled on the board; None if that takes too long."""
    deadline = time.monotonic() + seconds
    past = None
    while time.monotonic() < deadline:
        await tombstones.stay()
        # Another process may feed the board, and hang.
        with suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP_SECONDS):
                await catch_up()
        state = await mirror.state()
        if state is None or state.epoch != epoch:
            raise Refused
        if int(state.checkpoint.xact) < settled.xact or (past is not None and past.run != state.run):
            # Not yet, or not any more: Redis fell back, or another server's clock tells the time.
            past = None
        elif past is None:
            # Whatever wrote those versions had ended at this moment. A user among them who was changed again meanwhile
            # may still be missing from the board, but not from the next one that is applied as a whole.
            past = state
        elif state.applied_since(past.now_ms):
            begun = await mirror.compact(state, settled.version, settled.xact, since_ms=past.now_ms)
            if begun is not None:
                return begun
        await asyncio.sleep(_LOOK_SECONDS)
    return None


async def _sweep(tombstones: Tombstones, inspection: Inspection, report: Report, epoch: str) -> None:
    place, is_last = "0", False
    while not is_last:
        began = time.monotonic()
        place, gone = await inspection.scan_gone(place, epoch=epoch)
        removed = await inspection.sweep(gone, epoch=epoch)
        report.mirror_tombstones_removed += removed
        report.mirror_tombstones = max(report.mirror_tombstones - removed, 0)
        is_last = place == "0"
        await tombstones.stay()
        await _rest(began)


async def _rest(began: float) -> None:
    await asyncio.sleep((time.monotonic() - began) * (1 / _DUTY - 1))
