"""
Postgres in domain verbs: the system of record, and the answers when the mirror has none.

Every verb takes a batch, is one round trip (`create` two when somebody clashes), and raises
`Unavailable` when Postgres cannot answer; the two writes raise `OutcomeUnknown` when the connection
broke while they might have been committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.errors import IdTaken, LadderError, NotFound, PreconditionFailed, Unavailable, UsernameTaken
from service.model import Board, Page, Rated, Standing, User
from service.order import ranked
from service.store.postgres import QUERIES, borrowed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.model import NewRating, NewUser, UserId, Window
    from service.store.postgres import Postgres


class Ledger:
    """The users of one database."""

    def __init__(self, postgres: Postgres) -> None:
        self._reads = postgres.reads
        self._writes = postgres.writes

    async def create(self, users: Sequence[NewUser]) -> list[Rated | LadderError]:
        """
        Create users; per item the user, or `IdTaken` or `UsernameTaken`. All that is returned is committed.

        Of two items with the same id or name one is created; the other clashes with it.
        """
        async with borrowed(self._writes, writing=True) as connection:
            cursor = await connection.execute(
                QUERIES["create"],
                {
                    "ids": [user.id for user in users],
                    "usernames": [user.username for user in users],
                    "ratings": [user.rating for user in users],
                },
            )
            created = {row[0]: Rated(User(*row), None) for row in await cursor.fetchall()}
        outcomes: list[Rated | LadderError | None] = []
        for user in users:
            mine = created.get(user.id)
            # A namesake of the same id in this batch got the row: it is given out once.
            outcomes.append(created.pop(user.id) if mine and mine.user.username == user.username else None)
        lost = [user for user, outcome in zip(users, outcomes, strict=True) if outcome is None]
        clashes = await self._clashes(lost) if lost else {}
        return [outcome or clashes[user.id, user.username] for user, outcome in zip(users, outcomes, strict=True)]

    async def _clashes(self, lost: Sequence[NewUser]) -> dict[tuple[str, str], LadderError]:
        try:
            taken = await self._read(
                "clashes", ids=[user.id for user in lost], names=[user.username.lower() for user in lost]
            )
        except Unavailable as error:
            # Nothing was written for these; but the rest of the batch is committed and must be told so.
            return {(user.id, user.username): error for user in lost}
        ids, names = {row[0] for row in taken}, {row[1] for row in taken}
        return {
            (user.id, user.username): IdTaken()
            if user.id in ids
            else UsernameTaken()
            if user.username.lower() in names
            else Unavailable("the user that was in the way has just been removed")
            for user in lost
        }

    async def rate(self, ratings: Sequence[NewRating]) -> list[Rated | LadderError]:
        """
        Set ratings of different users; per item the user, or `NotFound` or `PreconditionFailed`.

        A rating that is already the user's changes nothing: the version stays. All that is returned is
        committed.
        """
        async with borrowed(self._writes, writing=True) as connection:
            cursor = await connection.execute(
                QUERIES["rate"],
                {
                    "ids": [item.id for item in ratings],
                    "ratings": [item.rating for item in ratings],
                    "wanted": [item.wanted for item in ratings],
                },
            )
            held = {row[2]: row for row in await cursor.fetchall()}
        outcomes: list[Rated | LadderError] = []
        for item in ratings:
            row = held.get(item.id)
            if row is None:
                outcomes.append(NotFound())
            elif item.wanted is not None and row[1] != item.wanted:
                outcomes.append(PreconditionFailed())
            else:
                outcomes.append(Rated(User(*row[2:]), row[0]))
        return outcomes

    async def users(self, ids: Sequence[UserId]) -> dict[UserId, User]:
        """Return the users that exist, by id. O(batch * log n)."""
        return {row[0]: User(*row) for row in await self._read("users", ids=list(ids))}

    async def search(self, prefix: str, *, limit: int) -> list[User]:
        """
        Return users whose name begins with `prefix`, ordered by lower(username). O(log n + limit).

        `prefix` must be lower-case and of the username alphabet: the range is cut with a byte above it.
        """
        return [User(*row) for row in await self._read("search", prefix=prefix, last=prefix + "~", limit=limit)]

    async def standings(self, ids: Sequence[UserId]) -> dict[UserId, tuple[User, Standing]]:
        """Return the users that exist with their exact standings. O(rank) for each: the last resort."""
        return {
            row[0]: (user := User(*row[:6]), Standing(user.version, user.rating, row[6], row[7]))
            for row in await self._read("standings", ids=list(ids))
        }

    async def page(self, window: Window) -> Page:
        """Return the rows of a window. O(n): Postgres counts the board."""
        if window.after is None:
            rows = await self._read("slice_at", offset=window.offset, limit=window.limit)
        else:
            after = window.after
            rows = await self._read("slice_after", rating=after.rating, username=after.username, limit=window.limit)
        total, above, before = rows[0][:3]
        found = [(row[3], row[4], row[5]) for row in rows if row[3] is not None]
        return Page(Board(total), ranked(found, position=before + 1, rank=above + 1))

    async def cursor_key(self) -> bytes:
        """Return the key that cursors of this database are signed with."""
        return bytes((await self._read("cursor_key"))[0][0])

    async def ping(self) -> None:
        """Return once Postgres has answered."""
        async with borrowed(self._reads) as connection:
            await connection.execute("SELECT 1")

    async def _read(self, query: str, **parameters: object) -> list[tuple[Any, ...]]:
        async with borrowed(self._reads) as connection:
            return await (await connection.execute(QUERIES[query], parameters)).fetchall()
