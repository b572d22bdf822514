"""
The writes, each as statements on a connection; the caller commits each by itself or several together.

Every write takes locks in one order: keys, then users by id, then names. A rename holds a user while it waits for a
name, against that order, and therefore gives way.

`patience_ms` is how long each lock of another session is waited for; beyond it psycopg raises `LockNotAvailable`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from service.errors import (
    IdTaken,
    LadderError,
    Locked,
    NotFound,
    PreconditionFailed,
    RatingOutOfRange,
    Unavailable,
    UsernameTaken,
)
from service.model import MAX_RATING, MIN_RATING, Rated, Removed, User
from service.store.history import NO_SOURCE
from service.store.postgres import QUERIES, reading_result

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from service.model import NewName, NewRating, NewUser, Removal, UserId
    from service.store.postgres import Connection


async def create(connection: Connection, users: Sequence[NewUser], *, patience_ms: int) -> list[Rated | None]:
    """Create users; None where another has the id or the name."""
    cursor = await connection.execute(
        QUERIES["create"],
        {
            "ids": [user.id for user in users],
            "usernames": [user.username for user in users],
            "ratings": [user.rating for user in users],
            "patience": _text(patience_ms),
        },
    )
    source = connection.source or NO_SOURCE
    with reading_result(connection, writing=True):
        created = {row[0]: Rated(User(*row), None, source) for row in await cursor.fetchall()}
    outcomes: list[Rated | None] = []
    for user in users:
        mine = created.get(user.id)
        # A namesake of the same id in this batch got the row: it is given out once.
        outcomes.append(created.pop(user.id) if mine and mine.user.username == user.username else None)
    return outcomes


async def clashes(connection: Connection, lost: Sequence[NewUser]) -> dict[tuple[str, str], LadderError]:
    """Return by id and name why each could not be created."""
    cursor = await connection.execute(
        QUERIES["clashes"], {"ids": [user.id for user in lost], "names": [user.username.lower() for user in lost]}
    )
    taken = await cursor.fetchall()
    ids, names = {row[0] for row in taken}, {row[1] for row in taken}
    return {
        (user.id, user.username): IdTaken()
        if user.id in ids
        else UsernameTaken()
        if user.username.lower() in names
        else Unavailable("the user that was in the way has just been removed")
        for user in lost
    }


async def rate(
    connection: Connection, ratings: Sequence[NewRating], *, patience_ms: int | None = None
) -> list[Rated | LadderError]:
    """
    Set ratings of different users; a relative one is added under the row's lock, so that none is lost.

    Without patience, `Locked` stands in place of a user that another session has locked.
    """
    cursor = await connection.execute(
        QUERIES["rate"],
        {
            "ids": [item.id for item in ratings],
            "ratings": [item.rating for item in ratings],
            "relative": [item.relative for item in ratings],
            "wanted": _wanted(ratings),
            "patience": _text(patience_ms),
        },
    )
    with reading_result(connection, writing=True):
        held = {row[2]: row for row in await cursor.fetchall()}
    source = connection.source or NO_SOURCE
    outcomes: list[Rated | LadderError] = []
    for item in ratings:
        row = held.get(item.id)
        if row is None:
            outcomes.append(NotFound())
        elif row[0] is None:
            outcomes.append(Locked())
        elif item.wanted is not None and row[1] not in item.wanted:
            outcomes.append(PreconditionFailed())
        elif item.relative and not MIN_RATING <= row[0] + item.rating <= MAX_RATING:
            outcomes.append(RatingOutOfRange(f"The rating would be {row[0] + item.rating}; it must be 100..5000."))
        else:
            outcomes.append(Rated(User(*row[2:]), row[0], source))
    return outcomes


async def rename(connection: Connection, name: NewName, *, patience_ms: int) -> Rated | LadderError:
    """Give a user another name, in a transaction of its own."""
    try:
        async with connection.transaction():
            await connection.execute(QUERIES["rename_patience"], {"patience": _text(patience_ms)})
            cursor = await connection.execute(
                QUERIES["rename"],
                {
                    "id": name.id,
                    "username": name.username,
                    "wanted": None if name.wanted is None else list(name.wanted),
                },
            )
            row = await cursor.fetchone()
    except psycopg.errors.UniqueViolation:
        return UsernameTaken()
    if row is None:
        return NotFound()
    if name.wanted is not None and row[0] not in name.wanted:
        return PreconditionFailed()
    user = User(*row[1:])
    return Rated(user, user.rating, connection.source or NO_SOURCE)


async def remove(
    connection: Connection, removals: Sequence[Removal], *, patience_ms: int | None = None
) -> list[Removed | LadderError]:
    """
    Delete different users, inside a transaction: a tombstone is seen only by the statement after.

    Without patience, `Locked` stands in place of a user that another session has locked.
    """
    cursor = await connection.execute(
        QUERIES["remove"],
        {
            "ids": [item.id for item in removals],
            "wanted": _wanted(removals),
            "patience": _text(patience_ms),
        },
    )
    held = {row[0]: row[1] for row in await cursor.fetchall()}
    gone = [user_id for user_id, is_gone in held.items() if is_gone]
    cursor = await connection.execute(QUERIES["tombstones"], {"ids": gone})
    source = connection.source or NO_SOURCE
    buried = {row[0]: Removed(row[0], row[1], source) for row in await cursor.fetchall()}
    return [buried.get(item.id) or _kept(held, item) for item in removals]


def _kept(held: Mapping[UserId, bool | None], removal: Removal) -> LadderError:
    if removal.id not in held:
        return NotFound()
    return Locked() if held[removal.id] is None else PreconditionFailed()


def _text(patience_ms: int | None) -> str | None:
    return None if patience_ms is None else f"{patience_ms}ms"


def _wanted(items: Iterable[NewRating | Removal]) -> list[str | None]:
    """Return the versions that each may have, as Postgres spells an array."""
    return [None if item.wanted is None else f"{{{','.join(map(str, item.wanted))}}}" for item in items]
