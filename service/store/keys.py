"""
Every key name. A board's keys share the hash tag `{board}`, so that in Redis Cluster they live in one
slot and one script may touch them all. The first data layout adds no number; the next will
(`{ladder}:2:board`), so that two releases can run side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from typing import Self

    from service.model import UserId

LAYOUT = 1


class BoardKeys(msgspec.Struct, frozen=True):
    """The keys of one board; `lua/README.md` says what each holds."""

    board: str
    users: str
    state: str
    reconcile: str
    last_reconcile: str
    repair: str

    @classmethod
    def of(cls, name: str) -> Self:
        """Return the keys of the board called `name`."""
        parts = ("board", "users", "state", "reconcile", "reconcile:last", "reconcile:repair")
        return cls(*(f"{{{name}}}:{part}" for part in parts))


def bucket(client: str) -> str:
    """Return the key of a client's bucket of tokens, in a slot of its own."""
    return f"bucket:{client}"


def user_object(user_id: UserId) -> str:
    """Return the key of a cached user object, in a slot of its own."""
    return f"user:{user_id}"
