"""
Postgres in domain verbs: the system of record, and the answers when the mirror has none.

Every verb takes a batch and is one round trip unless it says otherwise (`create` two when somebody clashes),
and raises `Unavailable` when Postgres cannot answer; the writes raise `OutcomeUnknown` when the connection
broke while they might have been committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service import failpoints
from service.errors import LadderError, NotFound, StoreBug, Unavailable
from service.model import Board, Census, Day, Page, Row, Standing, User
from service.order import ranked
from service.store import idempotency, writing
from service.store.postgres import QUERIES, borrowed, reading_result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.model import (
        Around,
        NewName,
        NewRating,
        NewUser,
        OnceOnly,
        Rated,
        Removal,
        Removed,
        UserId,
        Window,
    )
    from service.store.idempotency import Kept
    from service.store.postgres import Pool, Postgres

LOCK_MS = 2000
"""How long an id or name that another session is taking is waited for."""
MANY = 3
"""Users from which on it is cheaper to count the board once by rating than each user's superiors."""


class Ledger:
    """The users of one database."""

    def __init__(self, postgres: Postgres) -> None:
        self._reads = postgres.reads
        self._fallback = postgres.fallback
        self._writes = postgres.writes

    async def create(self, users: Sequence[NewUser], *, patience_ms: int = LOCK_MS) -> list[Rated | LadderError]:
        """
        Create users; per item the user, or `IdTaken` or `UsernameTaken`. All that is returned is committed.

        Raises `Locked` when an id or a name is being taken by another session for longer than the patience.

        Of two items with the same id or name one is created; the other clashes with it.
        """
        async with borrowed(self._writes, "create", writing=True) as connection:
            await failpoints.reach("before_commit")
            outcomes = await writing.create(connection, users, patience_ms=patience_ms)
        lost = [user for user, outcome in zip(users, outcomes, strict=True) if outcome is None]
        clashes = await self._clashes(lost) if lost else {}
        return [outcome or clashes[user.id, user.username] for user, outcome in zip(users, outcomes, strict=True)]

    async def _clashes(self, lost: Sequence[NewUser]) -> dict[tuple[str, str], LadderError]:
        try:
            async with borrowed(self._reads, "clashes") as connection:
                return await writing.clashes(connection, lost)
        except Exception as error:  # noqa: BLE001  the rest of the batch is committed, whatever this is
            # Nothing was written for these; but the rest of the batch is committed and must be told so. Whatever it is:
            # a batch that raises is carried out again, and who was created would hear that somebody has their id.
            known = (
                error if isinstance(error, LadderError) else StoreBug(f"Postgres' answer could not be read: {error}")
            )
            return {(user.id, user.username): known for user in lost}

    async def rate(self, ratings: Sequence[NewRating], *, patience_ms: int | None = None) -> list[Rated | LadderError]:
        """
        Set ratings of different users; per item the user, or `NotFound`, `PreconditionFailed`, `RatingOutOfRange`.

        One transaction. A rating that is already the user's changes nothing: the version stays. All that is
        returned is committed. `Locked` in place of a user that another session has locked; with a patience that is
        waited for, and raised when it takes longer.
        """
        async with borrowed(self._writes, "rate", writing=True) as connection:
            await failpoints.reach("before_commit")
            return await writing.rate(connection, ratings, patience_ms=patience_ms)

    async def rename(self, name: NewName, *, patience_ms: int) -> Rated | LadderError:
        """
        Give a user another name; the user, or `NotFound`, `PreconditionFailed`, `UsernameTaken`.

        A name that is already the user's changes nothing. Raises `Locked` as `create` does. Three round trips.
        """
        async with borrowed(self._writes, "rename", writing=True) as connection:
            await failpoints.reach("before_commit")
            return await writing.rename(connection, name, patience_ms=patience_ms)

    async def remove(
        self, removals: Sequence[Removal], *, patience_ms: int | None = None
    ) -> list[Removed | LadderError]:
        """
        Delete different users; per item their tombstone, or `NotFound`, `PreconditionFailed`, `Locked` as in `rate`.

        Three round trips.
        """
        async with borrowed(self._writes, "remove", writing=True) as connection:
            await failpoints.reach("before_commit")
            async with connection.transaction():
                return await writing.remove(connection, removals, patience_ms=patience_ms)

    async def once(self, once: OnceOnly, write: NewUser | Sequence[NewRating], *, patience_ms: int) -> Kept:
        """
        Carry a write out unless its key was used within a day; what came of it then or now is committed.

        Raises `KeyReused` if it was used for another request, `Locked` as `create` does, and `Unavailable`. Five round
        trips; a request with the same key waits for it meanwhile.
        """
        async with borrowed(self._writes, "once", writing=True) as connection:
            return await idempotency.carry_out(connection, once, write, patience_ms=patience_ms)

    async def settle(self, once: OnceOnly, kept: Kept) -> Kept:
        """Keep an answer for those who repeat the request, unless one was kept already; returns the one that is."""
        async with borrowed(self._writes, "settle", writing=True) as connection:
            return await idempotency.settle(connection, once, kept)

    async def users(self, ids: Sequence[UserId]) -> dict[UserId, User]:
        """Return the users that exist, by id. O(batch * log n)."""
        return {row[0]: User(*row) for row in await self._read("users", ids=list(ids))}

    async def search(self, prefix: str, *, limit: int) -> list[User]:
        """
        Return users whose name begins with `prefix`, ordered by lower(username). O(log n + limit).

        `prefix` must be lower-case and of the username alphabet: the range is cut with a byte above it.
        """
        return [User(*row) for row in await self._read("search", prefix=prefix, last=prefix + "~", limit=limit)]

    async def past(self, asked: Sequence[tuple[UserId, int]]) -> list[list[Day] | NotFound]:
        """
        Return each user's days of so many up to today (UTC), oldest first, and the last one before them if there is.

        Only days with a row. O(log n + days) for each.
        """
        ids, days = [item[0] for item in asked], [item[1] for item in asked]
        found: dict[int, list[Day]] = {}
        for number, *row in await self._read("past", ids=ids, days=days):
            past = found.setdefault(number, [])
            if row[0] is not None:
                past.append(Day(*row))
        return [found.get(number, NotFound()) for number in range(1, len(asked) + 1)]

    async def standings(self, ids: Sequence[UserId]) -> dict[UserId, tuple[User, Standing]]:
        """Return the users that exist with their exact standings. O(rank) for few users, O(n) for many."""
        query = "standings" if len(ids) < MANY else "standings_of_many"
        return {
            row[0]: (user := User(*row[:6]), Standing(user.version, user.rating, row[6], row[7]))
            for row in await self._fall_back(query, ids=list(ids))
        }

    async def histogram(self) -> Census:
        """Return how many users have each rating. O(n), whoever asks for however many users afterwards."""
        ((snapshot, as_of, ratings, users),) = await self._fall_back("histogram")
        return Census(snapshot, as_of, dict(zip(ratings, users, strict=True)))

    async def places(self, ids: Sequence[UserId], *, snapshot: str) -> dict[UserId, tuple[User, int, bool]]:
        """
        Return the users that exist, how many of their rating stand before them, and whether `snapshot` saw them so.

        One that has changed since would be counted by that snapshot where they no longer are.
        O(log n + ties) for each.
        """
        return {
            row[0]: (User(*row[:6]), row[6], row[7])
            for row in await self._fall_back("places", ids=list(ids), snapshot=snapshot)
        }

    async def page(self, window: Window) -> Page:
        """Return the rows of a window. O(n): Postgres counts the board."""
        if window.after is None:
            rows = await self._fall_back("slice_at", offset=window.offset, limit=window.limit)
        else:
            rating, username = window.after.rating, window.after.username
            rows = await self._fall_back("slice_after", rating=rating, username=username, limit=window.limit)
        total, above, before = rows[0][:3]
        found = [(row[3], row[4], row[5]) for row in rows if row[3] is not None]
        return Page(Board(total), ranked(found, position=before + 1, rank=above + 1))

    async def rows_of(self, ids: Sequence[UserId]) -> tuple[int, dict[UserId, Row]]:
        """Return how many users there are (0 if none was found), and the rows of those found. O(n)."""
        rows = await self._fall_back("rows_of", ids=list(ids))
        return (rows[0][0] if rows else 0), {row[1]: Row(row[5], row[4], *row[1:4]) for row in rows}

    async def neighbors(self, around: Around) -> Page | NotFound:
        """Return the rows around a user. O(n): Postgres counts the board."""
        rows = await self._fall_back("neighbors", id=around.user_id, radius=around.radius)
        if not rows:
            return NotFound()
        total, above, before = rows[0][:3]
        return Page(Board(total), ranked([row[3:6] for row in rows], position=before + 1, rank=above + 1))

    async def cursor_key(self) -> bytes:
        """Return the key that cursors of this database are signed with."""
        return bytes((await self._read("cursor_key"))[0][0])

    async def ping(self) -> None:
        """Return once Postgres has answered; `Unavailable` also while it has no schema of ours."""
        ((there_are_users,),) = await self._read("ping")
        if not there_are_users:
            raise Unavailable("Postgres answers, but has no table of users")

    async def _read(self, query: str, **parameters: object) -> list[tuple[Any, ...]]:
        return await _rows(self._reads, query, parameters)

    async def _fall_back(self, query: str, **parameters: object) -> list[tuple[Any, ...]]:
        """Read what the mirror should have answered, behind the bulkhead."""
        return await _rows(self._fallback, query, parameters)


async def _rows(pool: Pool, query: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
    async with borrowed(pool, query) as connection:
        cursor = await connection.execute(QUERIES[query], parameters)
        with reading_result(connection):
            return await cursor.fetchall()
