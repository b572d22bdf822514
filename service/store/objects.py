"""
The cache-aside user objects: what Postgres keeps about a user, in Redis for five minutes.

The value is `version|history|json`. It is valid only while its version is the one the mirror holds for that
user: the fence doubles as the cache validator, so a stale fill is never served, however late it lands. And only
in the history that gave out the version: one that was lost may have given it to another content.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgspec

from service.model import User, Version
from service.store import lua
from service.store.history import ANY_SOURCE, digest
from service.store.keys import user_object

if TYPE_CHECKING:
    from collections.abc import Sequence

TTL_MS = 300_000
STORED = 100
"""Objects in one call: well under a millisecond."""
_JITTER = 0.1

_decode = msgspec.json.Decoder(User).decode
_encode = msgspec.json.Encoder().encode


def decode(raw: bytes | None, version: Version, source: str) -> User | None:
    """Return the cached user if the object is there, whole, and of exactly this version of this history."""
    if raw is None:
        return None
    head, _, rest = raw.partition(b"|")
    history, _, body = rest.partition(b"|")
    if head != str(version).encode() or (source != ANY_SOURCE and history != digest(source).encode()):
        return None
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def store(users: Sequence[User], source: str) -> list[lua.Command]:
    """Return the calls that cache users as that history has them, unless newer versions are cached already."""
    return [_store(users[first : first + STORED], source) for first in range(0, len(users), STORED)]


def _store(users: Sequence[User], source: str) -> lua.Command:
    arguments: list[Any] = []
    for user in users:
        # Objects filled together must not expire together.
        ttl = int(TTL_MS * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311  spread, not secrecy
        arguments += (user.version, _encode(user), ttl)
    keys = (user_object(user.id) for user in users)
    return (lua.STORE_OBJECTS, len(users), *keys, digest(source), *arguments)
