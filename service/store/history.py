"""
Which history of Postgres a version, an object or a board belongs to: `cluster:timeline:database:name`.

The first three parts are Postgres' own. They are not enough: a backup put back by hand has those of what it
replaces, and two standbys that were promoted one after the other may have the same. So a history that comes upon
a database it does not know is given a random name, kept in the database; and its versions begin far above all that
the one before can have given out (decision 8).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import msgspec

ANY_SOURCE = ""
"""Passed as the source when it is not known: a board of any history is accepted."""
NO_SOURCE = "none"
"""Passed as the source when no board is to be believed: none is of that history."""

_DIGEST_BYTES = 4


class History(msgspec.Struct):
    """
    The source that was seen last, by whichever connection of this process; `NO_SOURCE` before the first.

    `is_shared` is whether a pooler was found to share sessions between clients: then no write is made through it.
    """

    source: str = NO_SOURCE
    is_shared: bool = False


def succeeds(source: str, board: str) -> bool:
    """
    Whether a board of one history may be replaced by another without anybody asking.

    After a failover or a restore: the same database of the same cluster, its timeline not an older one. A primary
    that was given up and comes back does not succeed, nor does another database. What is no source has no say.
    """
    mine, theirs = _place(source), _place(board)
    return mine is None or theirs is None or (mine[:2] == theirs[:2] and mine[2] >= theirs[2])


def _place(source: str) -> tuple[str, str, int] | None:
    try:
        cluster, timeline, database, *_ = source.split(":")
        return cluster, database, int(timeline, 16)
    except ValueError:
        return None


@lru_cache(maxsize=16)
def digest(source: str) -> str:
    """Return the few characters that tell one history from another where there is no room for more."""
    return hashlib.blake2s(source.encode(), digest_size=_DIGEST_BYTES).hexdigest()
