"""
What Postgres answers when the mirror must not or cannot: exactly, or on a big board from a histogram.

All of it runs behind a bulkhead (`Postgres.fallback`) and within a deadline: beyond what a few connections
can do a read is refused at once, because a Postgres that is busy counting could not take writes either.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from service.errors import NotFound, Unavailable
from service.model import Board, Roster, Standing
from service.ranking.answers import Answer, Ranked, Seen
from service.ranking.coalesce import Coalescer
from service.ranking.deadline import within
from service.ranking.histogram import Histogram, Histograms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from service.model import Around, Buckets, Counted, Page, UserId, Window
    from service.store.ledger import Ledger

EXACT_USERS = 50_000
"""The largest board that is counted anew for everybody: 2 ms for one user there, 26 ms for 128 (decision 6)."""
COUNTED_IDS = 128
"""Users in one exact count: one statement, and most of it does not depend on how many they are."""
PLACED_IDS = 128
"""Users in one look-up beside the histogram: a statement of 2 to 6 ms."""
QUEUE_SECONDS = 0.1
"""How long a read waits for its turn at the bulkhead."""
ANSWER_SECONDS = 1.0
"""How long it waits in all: past its turn, that of a histogram, and a statement (0.5 s) that is cut off."""


class Fallback:
    """
    The reads of one ledger that count. Every one raises `Unavailable` when it cannot be answered in time.

    A board of up to `exact_users` is counted for everybody.
    """

    def __init__(self, ledger: Ledger, *, exact_users: int = EXACT_USERS) -> None:
        self._ledger = ledger
        self._exact_users = exact_users
        self._histograms = Histograms(ledger.histogram)
        self._counted = Coalescer(
            self._count, shared=True, max_batch=COUNTED_IDS, patience=QUEUE_SECONDS, name="counted_users"
        )
        self._placed = Coalescer(
            self._place, shared=True, max_batch=PLACED_IDS, patience=QUEUE_SECONDS, name="placed_users"
        )
        self._pages = Coalescer(self._cut, shared=True, max_batch=1, patience=QUEUE_SECONDS, name="counted_pages")
        self._ranked = Coalescer(
            self._rank, shared=True, max_batch=COUNTED_IDS, patience=QUEUE_SECONDS, name="counted_ranks"
        )
        self._listed = Coalescer(self._list, shared=True, max_batch=1, patience=QUEUE_SECONDS, name="counted_lists")
        self._around = Coalescer(
            self._surround, shared=True, max_batch=1, patience=QUEUE_SECONDS, name="counted_neighbors"
        )
        self._censuses = Coalescer(self._census, shared=True, max_batch=1, patience=QUEUE_SECONDS, name="censuses")
        self.under_way = 0

    async def drain(self) -> None:
        """Return when no statement is under way."""
        users = (self._counted, self._placed, self._ranked, self._listed)
        for gathered in (*users, self._pages, self._around, self._censuses, self._histograms):
            await gathered.drain()

    async def user(self, user_id: UserId, *, exact: bool) -> Answer[Seen]:
        """
        Return a user and where they stand; raises `NotFound`, `Unavailable`.

        Unless `exact`, a big board answers from a histogram; one who has changed since then is counted.
        """
        async with self._deadline():
            if not exact:
                histogram = await self._histograms.newest()
                if histogram.total > self._exact_users:
                    answer = await self._placed(user_id)
                    if answer is not None:
                        return answer
            return await self._counted(user_id)

    async def page(self, window: Window) -> Answer[Page]:
        """Return a page, counted at one instant; raises `Unavailable`."""
        async with self._deadline():
            # Without the writes that it must show, of which Postgres has every one: equal pages are shared.
            return Answer(await self._pages(msgspec.structs.replace(window, since=())), "postgres")

    async def rank(self, user_id: UserId, *, exact: bool) -> Answer[Ranked]:
        """Return where a user stands among how many, as `user` does; raises `NotFound`, `Unavailable`."""
        async with self._deadline():
            if not exact:
                histogram = await self._histograms.newest()
                if histogram.total > self._exact_users:
                    answer = await self._placed(user_id)
                    if answer is not None and answer.as_of == histogram.as_of:
                        standing = answer.value.standing
                        ranked = Ranked(user_id, standing.rating, standing.rank, standing.position, histogram.total)
                        return Answer(ranked, "histogram", as_of=answer.as_of)
            return await self._ranked(user_id)

    async def rows(self, ids: tuple[UserId, ...]) -> Answer[Roster]:
        """Return users' rows, counted at one instant; raises `Unavailable`."""
        async with self._deadline():
            return Answer(await self._listed(ids), "postgres")

    async def neighbors(self, around: Around) -> Answer[Page]:
        """Return the rows around a user, counted at one instant; raises `NotFound`, `Unavailable`."""
        async with self._deadline():
            return Answer(await self._around(msgspec.structs.replace(around, since=())), "postgres")

    async def count(self, buckets: Buckets, *, exact: bool) -> Answer[Counted]:
        """Return how many users have which ratings; raises `Unavailable`. Unless `exact`, a big board's of late."""
        async with self._deadline():
            if not exact:
                histogram = await self._histograms.newest()
                if histogram.total > self._exact_users:
                    return Answer(histogram.counted(buckets), "histogram", as_of=histogram.as_of)
            return Answer((await self._censuses(None)).counted(buckets), "postgres")

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        self.under_way += 1
        try:
            # Beyond a turn at the bulkhead and a statement that Postgres itself cuts off: it has gone silent.
            async with within(ANSWER_SECONDS, Unavailable("Postgres did not answer in time")):
                yield
        finally:
            self.under_way -= 1

    async def _count(self, ids: Sequence[UserId]) -> list[Answer[Seen] | NotFound]:
        found = await self._ledger.standings(ids)
        return [Answer(Seen(*found[user_id]), "postgres") if user_id in found else NotFound() for user_id in ids]

    async def _place(self, ids: Sequence[UserId]) -> list[Answer[Seen] | NotFound | None]:
        """Rank users by the histogram; None for those who have changed since and are counted in it elsewhere."""
        histogram = await self._histograms.newest()
        found = await self._ledger.places(ids, snapshot=histogram.snapshot)
        answers: list[Answer[Seen] | NotFound | None] = []
        for user_id in ids:
            if user_id not in found:
                answers.append(NotFound())
                continue
            user, ties_before, counted = found[user_id]
            if not counted:
                answers.append(None)
                continue
            above = histogram.above(user.rating)
            # The ties are of now and those above of a second ago, so the position is at most as old as the
            # rank, and never in front of it.
            standing = Standing(user.version, user.rating, 1 + above, 1 + above + ties_before)
            answers.append(Answer(Seen(user, standing), "histogram", as_of=histogram.as_of))
        return answers

    async def _cut(self, windows: Sequence[Window]) -> list[Page]:
        return [await self._ledger.page(window) for window in windows]

    async def _rank(self, ids: Sequence[UserId]) -> list[Answer[Ranked] | NotFound]:
        total, found = await self._ledger.rows_of(ids)
        return [
            Answer(Ranked(user_id, row.rating, row.rank, row.position, total), "postgres")
            if (row := found.get(user_id))
            else NotFound()
            for user_id in ids
        ]

    async def _list(self, lists: Sequence[tuple[UserId, ...]]) -> list[Roster]:
        rosters = []
        for ids in lists:
            total, found = await self._ledger.rows_of(ids)
            rosters.append(Roster(Board(total), list(map(found.get, ids))))
        return rosters

    async def _surround(self, asked: Sequence[Around]) -> list[Page | NotFound]:
        return [await self._ledger.neighbors(around) for around in asked]

    async def _census(self, asked: Sequence[None]) -> list[Histogram]:
        return [Histogram(await self._ledger.histogram(), asked_at=0)] * len(asked)
