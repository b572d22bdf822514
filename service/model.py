"""The shared words: what a user is, what a standing is, what a row of the board is, and their limits."""

from __future__ import annotations

import os
import re
import time
import uuid
from datetime import date, datetime
from typing import Literal, NewType

import msgspec

UserId = NewType("UserId", str)
"""Opaque: matches `USER_ID`, is not in `RESERVED_IDS`."""

Version = NewType("Version", int)
"""Grows with every change of a user; from one global sequence, so below 2**53 for ever."""

MIN_RATING, MAX_RATING, DEFAULT_RATING = 100, 5000, 1000

USER_ID = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.:-]{1,64}\Z")
USERNAME = re.compile(r"[A-Za-z0-9_.-]{3,32}\Z")
RESERVED_IDS = frozenset({"search", ".", ".."})
"""Ids that no path can hold: a route has the first one's name, and clients resolve the others (RFC 3986 section 5.2.4)."""

RankSource = Literal["redis", "postgres", "histogram"]
"""What a rank was computed from; `histogram` is a count of Postgres' that is up to two seconds old."""

MirrorWrite = Literal["applied", "superseded", "pending"]
"""What became of a committed write in the mirror when its answer was sent."""


class User(msgspec.Struct, frozen=True):
    """A user as Postgres keeps it. `version` is the fence that decides which of two copies is newer."""

    id: UserId
    username: str
    rating: int
    version: Version
    created_at: datetime
    updated_at: datetime


class Standing(msgspec.Struct, frozen=True):
    """
    Where a user stands.

    `rank` is 1 + the number of users with a strictly higher rating; `position` is the 1-based place in
    the total order `rating DESC, username ASC`. Both were read at one instant together with `rating`
    and `version`.
    """

    version: Version
    rating: int
    rank: int
    position: int


class Row(msgspec.Struct, frozen=True):
    """A row of the board; the fields and their order are the wire's."""

    position: int
    rank: int
    id: UserId
    username: str
    rating: int


class Point(msgspec.Struct, frozen=True, array_like=True):
    """A point of the total order: a cursor means "strictly after this"."""

    rating: int
    username: str


def new_user_id() -> UserId:
    """Return a fresh UUIDv7 (RFC 9562 section 5.7): time-ordered, so that inserts stay at the index's end."""
    millis = time.time_ns() // 1_000_000
    bits = millis << 80 | int.from_bytes(os.urandom(10), "big")
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    return UserId(str(uuid.UUID(int=bits)))


class Board(msgspec.Struct, frozen=True):
    """
    The board at the instant of a read: how many users are on it and, from the mirror, how far it may lag.

    None from the mirror: that is unknown, and no bound may be assumed.
    """

    total: int
    lag_ms: int | None = None


class Page(msgspec.Struct, frozen=True):
    """Consecutive rows of the board, all read at one instant."""

    board: Board
    rows: list[Row]


HISTORY_DAYS = 400
"""How many days are kept before the present one."""


class Day(msgspec.Struct, frozen=True):
    """Where a user stood at the end of a day (UTC); the fields and their order are the wire's."""

    day: date
    rating: int
    rank: int
    position: int


class Token(msgspec.Struct, frozen=True):
    """A write that an answer must not be from before: that version of that user, or a newer one, is in it."""

    id: UserId
    version: Version

    def __str__(self) -> str:
        """As the wire has it; an id may contain colons, a version none."""
        return f"{self.id}:{self.version}"


class Window(msgspec.Struct, frozen=True):
    """
    Which rows of the board are asked for: `limit` of them after a point of the order, else after `offset`.

    The mirror answers only if it has every write in `since`; Postgres always has.
    """

    limit: int
    offset: int = 0
    after: Point | None = None
    since: tuple[Token, ...] = ()


class Around(msgspec.Struct, frozen=True):
    """Which rows are asked for: a user's, and `radius` on either side; near an end as many more on the other one."""

    user_id: UserId
    radius: int
    since: tuple[Token, ...] = ()


class Roster(msgspec.Struct, frozen=True):
    """The rows of these users, in the order asked: None for one who is not there. All read at one instant."""

    board: Board
    rows: list[Row | None]


class Buckets(msgspec.Struct, frozen=True):
    """Which ratings are to be counted: from `low` to `high`, `width` of them together, the last bucket maybe fewer."""

    low: int
    high: int
    width: int = 1
    since: tuple[Token, ...] = ()

    def __len__(self) -> int:
        """How many buckets there are."""
        return (self.high - self.low) // self.width + 1

    def bounds(self) -> list[tuple[int, int]]:
        """Return the lowest and the highest rating of each."""
        return [(low, min(low + self.width - 1, self.high)) for low in range(self.low, self.high + 1, self.width)]


QUANTILES = (10, 50, 90, 99)
"""By nearest rank: the lowest rating such that at least so many percent of the users have it or a lower one."""


class Counted(msgspec.Struct, frozen=True):
    """Users by rating at one instant: how many in each bucket and above them all, and the quantiles; none of nobody."""

    board: Board
    above: int
    users: list[int]
    quantiles: list[int]


class Census(msgspec.Struct, frozen=True):
    """How many users have each rating, in one snapshot of Postgres; whatever was committed before `as_of` is in."""

    snapshot: str
    as_of: datetime
    users: dict[int, int]


class NewUser(msgspec.Struct, frozen=True):
    """A user to create."""

    id: UserId
    username: str
    rating: int


class NewRating(msgspec.Struct, frozen=True):
    """
    A rating to set; `wanted` are the versions that may be changed, None for any.

    One that is `relative` is added to the rating that the user has.
    """

    id: UserId
    rating: int
    wanted: tuple[Version, ...] | None = None
    relative: bool = False


class NewName(msgspec.Struct, frozen=True):
    """A name to give to a user; `wanted` are the versions that may be changed, None for any."""

    id: UserId
    username: str
    wanted: tuple[Version, ...] | None = None


class Removal(msgspec.Struct, frozen=True):
    """A user to delete; `wanted` are the versions that may be deleted, None for any."""

    id: UserId
    wanted: tuple[Version, ...] | None = None


class OnceOnly(msgspec.Struct, frozen=True):
    """The key of a request that is carried out once however often it comes, and the digest of what it asks for."""

    key: str
    request: bytes


class Rated(msgspec.Struct, frozen=True):
    """A user after a committed write, the rating before it (None for a new user), and the history it is part of."""

    user: User
    previous_rating: int | None
    source: str = ""


class Removed(msgspec.Struct, frozen=True):
    """A user who is gone since a committed deletion, its version, and the history it is part of."""

    id: UserId
    version: Version
    source: str = ""


class Placed(msgspec.Struct, frozen=True):
    """What the mirror made of a committed write; None for what it could not tell."""

    outcome: MirrorWrite
    rank: int | None = None
    position: int | None = None
    previous_rank: int | None = None


class Change(msgspec.Struct, frozen=True):
    """What the mirror should hold about a user; without a rating: that the user is gone."""

    id: UserId
    version: Version
    rating: int | None
    username: str | None


class Checkpoint(msgspec.Struct, frozen=True):
    """A place in Postgres' order (xact, id): every change at or before it is in the mirror."""

    xact: str
    id: str = ""
