"""What a board would lose if it became equal to a database: asked before a command makes it so on an operator's word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from service.store.keys import LAYOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.store.feed import Feed
    from service.store.inspection import Inspection
    from service.store.mirror import State

_START = "0"


class Loss(msgspec.Struct, frozen=True):
    """How many users there are in both stores, and how many of the board's are not in the database."""

    board: int
    database: int
    lost: int
    is_whole: bool
    """Whether all users of the board were looked up; else it is `lost` at least."""

    @property
    def is_large(self) -> bool:
        """Whether it is more than a tenth of the board."""
        return is_large(self.lost, self.board)


def is_large(lost: int, users: int) -> bool:
    """Whether a board of `users` would lose more than a tenth of them."""
    return 10 * lost > users


def is_replaced(state: State, source: str) -> bool:
    """Whether a tailer of this history would load the board anew instead of going on with it."""
    return state.layout != str(LAYOUT) or state.source != source or not state.intact


async def expected_loss(
    feed: Feed, inspection: Inspection, state: State, *, progress: Callable[[int], None] = lambda _: None
) -> Loss:
    """
    Look up the board's users in a database; stop early once the loss is known to be large. O(n log n).

    `progress` is called with the users looked up. Raises `Unavailable`, and `Refused` if the board was started anew.
    """
    database = await feed.count()
    if state.layout != str(LAYOUT):
        # What another release keeps on its board cannot be read.
        return Loss(state.users, database, max(state.users - database, 0), is_whole=True)
    place, looked_up, lost = _START, 0, 0
    while not is_large(lost, state.users):
        place, ids = await inspection.scan_users(place, epoch=state.epoch)
        looked_up += len(ids)
        lost += len(set(ids) - await feed.present(ids))
        progress(looked_up)
        if place == _START:
            return Loss(state.users, database, lost, is_whole=True)
    return Loss(state.users, database, lost, is_whole=False)
