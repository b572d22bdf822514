"""
After the restore of a dump: users claim transactions of the cluster that was dumped, which this one has yet to begin.

The tail follows the order of transactions, so it would take them for changes to come, again and again. Each is
written once more, which gives it a transaction of this cluster and a new version; ratings and names stay.

A dump put back into the database that it was taken from claims none: its transactions are of the past, and so are its
versions and the name of its history. Nothing tells it from what it replaced but whoever restored it, so by asking for
this they end that history: versions go on above all that were lost, and the board is loaded anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.ranking.reconcile import admitted

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.ranking.drift import Report
    from service.store.feed import Feed

BATCH_ROWS = 500
"""Users of one transaction: the longest that a request may have to wait for one of them, some 20 ms."""


async def rebase(
    feed: Feed, report: Report, *, dry_run: bool, progress: Callable[[int, int], None] = lambda _, __: None
) -> None:
    """
    Begin another history, and give every user and tombstone a transaction of this cluster.

    What was found and done is counted in `report`.

    `progress` is called with rows done and rows in all. Raises `LockBusy`, `NotSafe` on a standby, `Unavailable`;
    whatever ended it, another run goes on with what is left. O(n log n).
    """
    report.src = await admitted(feed)
    if not dry_run:
        # First: until then a version may be given out that the lost history has given to another.
        await feed.disown(report.src)
        report.src = await feed.adopt()
    report.checked = report.stale = report.remaining = await feed.foreign()
    while report.remaining and not dry_run:
        done = await feed.rebase(limit=BATCH_ROWS)
        report.repaired += done
        # Transactions that this cluster has begun meanwhile are no longer foreign.
        report.remaining = max(report.stale - report.repaired, 0) if done else 0
        progress(report.repaired, report.stale)
