"""
The load of an empty board: every user of Postgres, as fast as Redis takes them.

In the order of the table's file, because that is how Postgres reads fastest, a stretch at a time; and each stretch by
rating, because the board takes neighbours one after the other in half the time. While Redis takes one stretch Postgres
reads the next.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from service import failpoints, metrics
from service.store.mirror import Feeding, Refused, board_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.store.feed import Feed
    from service.store.mirror import BoardRow, Mirror, State

STRETCH_PAGES = 120
"""Pages of the table in one SELECT, some 80 users each. The event loop is held for about 10 ms while they are decoded."""
PIPELINE_ROWS = 2000
"""Users in one pipeline of small script calls, and encoded before the event loop serves others."""

_log = structlog.get_logger(__name__)


async def load(feed: Feed, mirror: Mirror, state: State, progress: Callable[[int], None]) -> str:
    """
    Put every user on the board, from where a load before this one ended; return the token for the next batch.

    A row that moves behind the walk was written after it began, and is the tail's to bring. Raises `Refused` if the
    board was started anew, or the table rewritten, meanwhile: the next cycle begins with what is there then.
    O(n log n).
    """
    token, loaded = state.token, state.users
    file, pages = await feed.heap()
    begun_file, _, begun_page = state.loaded.partition(":")
    page = int(begun_page) if begun_file == file else 0
    stretch = await _read(feed, page)
    while page < pages:
        page += STRETCH_PAGES
        following = asyncio.ensure_future(_read(feed, page))
        try:
            for rows in stretch:
                # What was loaded is noted with the last of its rows, and not before.
                mark = f"{file}:{page}" if rows is stretch[-1] else None
                news, token = await mirror.feed(Feeding(rows, loaded=mark), epoch=state.epoch, token=token)
                loaded += news
                progress(loaded)
                await failpoints.reach("load_mid")
        finally:
            stretch = await following
    if file != (await feed.heap())[0]:
        raise Refused
    metrics.LOADS_FINISHED.inc()
    _log.info("mirror.loaded", users=loaded)
    return token


async def _read(feed: Feed, page: int) -> list[list[BoardRow]]:
    """Return the users of a stretch, encoded, in as many parts as pipelines; at least one."""
    changes = await feed.rows(page, page + STRETCH_PAGES, in_order=True)
    parts = []
    for first in range(0, len(changes) or 1, PIPELINE_ROWS):
        parts.append(board_rows(changes[first : first + PIPELINE_ROWS]))
        await asyncio.sleep(0)
    return parts
