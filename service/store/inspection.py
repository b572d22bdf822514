"""
Redis as the full reconciliation sees it: the whole board in bounded steps, and repairs that lose every race.

The scans are plain commands and may mix two moments; they only say who looks wrong. What is repaired was
read by `peek`, at one instant, and the repair is refused when that reading is no longer true. All verbs
raise `Unavailable` when Redis cannot answer and `Refused` when the board was started anew.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from service.model import UserId, Version
from service.order import TERMINATOR, encode
from service.store import lua
from service.store.keys import BoardKeys, user_object
from service.store.mirror import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from service.model import Change
    from service.store.redis import Client

T = TypeVar("T")

SCAN_COUNT = 500
"""What one scan, and one command about what it found, asks for: about half a millisecond of the server's time."""
SCANS = 4
"""Scans in one step: two thousand users, which are asked of Postgres at once."""
PEEK_IDS = 250
FIX_ROWS = 100
GHOST_MEMBERS = 100
"""Users or members in one script: few enough to keep it under 2 ms."""
REPAIR_MS = 30_000
"""How long a repair is taken to go on after it was heard of last."""
NOTE_SECONDS = 24 * 60 * 60
"""How long a reconciliation that did not end can be resumed."""
OUTCOME_SECONDS = 7 * 24 * 60 * 60
"""How long it is known how the last one ended."""

_HELD = re.compile(rb"([0-9]{1,15})\|(.*)\Z", re.DOTALL)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What the mirror holds about a user: version|encoded name, b"" for nothing, and that member's score."""

    held: bytes
    score: float | None

    def shows(self, change: Change) -> bool:
        """Whether this is what Postgres says."""
        held = f"{change.version}|{encode(change.username or '')}".encode()
        return self.score == change.rating and self.held == held

    @property
    def version(self) -> Version | None:
        """The version, None if there is none or it cannot be read."""
        parts = _HELD.match(self.held)
        return Version(int(parts[1])) if parts else None

    @property
    def is_gone(self) -> bool:
        """Whether this says that the user is deleted."""
        return self.held.endswith(b"|")


class Fix(msgspec.Struct, frozen=True):
    """A repair: `change` replaces exactly the version `want`, any older one if that is None."""

    change: Change
    want: Version | None


class Inspection:
    """The board called `board` in one Redis, of the epoch that is given to each verb."""

    def __init__(self, client: Client, *, board: str = "ladder") -> None:
        self._client = client
        self._keys = BoardKeys.of(board)
        self._all_keys = (3, self._keys.board, self._keys.users, self._keys.state)

    async def server(self) -> str:
        """
        Return the identity of the server process.

        A scan's position means nothing to another one: it hashes with a seed of its own.
        """
        (reply,) = await lua.pipeline(self._client, [("INFO", "server")])
        return str(reply["run_id"])

    async def miscount(self, *, epoch: str) -> int:
        """
        Return how many members more the board expects than it has. O(1).

        Every script changes both numbers alike: while nobody tampers with the keys the difference stays.
        """
        (reply,) = await lua.pipeline(self._client, [(lua.PEEK, *self._all_keys, epoch)])
        return int(_accepted(reply)[1])

    async def differing(self, changes: Sequence[Change], *, epoch: str) -> list[Change]:
        """Return those of the users that the mirror does not hold, or not just so. O(users)."""
        encoded = [encode(change.username or "") for change in changes]
        ids = [change.id for change in changes]
        members = [f"{name}{TERMINATOR}{user_id}" for name, user_id in zip(encoded, ids, strict=True)]
        held = await self._many("HMGET", self._keys.users, ids, epoch=epoch)
        scores = await self._many("ZMSCORE", self._keys.board, members, epoch=epoch)
        return [
            change
            for change, name, value, score in zip(changes, encoded, held, scores, strict=True)
            if score != change.rating or value != b"%d|%s" % (change.version, name.encode())
        ]

    async def scan_users(self, place: str, *, epoch: str) -> tuple[str, list[UserId]]:
        """
        Return the ids of some users whom the mirror holds, and the place behind them, "0" at the end.

        Whoever is there from the first step to the last is met.
        """
        place, found = await self._scan("HSCAN", self._keys.users, place, epoch=epoch)
        return place, [
            UserId(user_id.decode(errors="replace"))
            for fields in found
            for user_id, held in fields.items()
            if not held.endswith(b"|")
        ]

    async def scan_gone(self, place: str, *, epoch: str) -> tuple[str, list[UserId]]:
        """Return the ids of some users that the mirror knows to be deleted, and the next place, as `scan_users` does."""
        place, found = await self._scan("HSCAN", self._keys.users, place, epoch=epoch)
        return place, [
            UserId(user_id.decode(errors="surrogateescape"))
            for fields in found
            for user_id, held in fields.items()
            if held.endswith(b"|")
        ]

    async def sweep(self, ids: Sequence[UserId], *, epoch: str) -> int:
        """Remove the fields of those of the users whose deletion is settled; returns how many. O(ids)."""
        keys = (2, self._keys.users, self._keys.state)
        # An id that was written by hand need not be text.
        raw = [user_id.encode(errors="surrogateescape") for user_id in ids]
        replies = await lua.pipeline(
            self._client, [(lua.SWEEP, *keys, epoch, *chunk) for chunk in _chunks(raw, PEEK_IDS)]
        )
        return sum(_accepted(reply)[1] for reply in replies)

    async def scan_board(self, place: str, *, epoch: str) -> tuple[str, list[bytes]]:
        """Return some members of the board and the place behind them, as `scan_users` does."""
        place, found = await self._scan("ZSCAN", self._keys.board, place, epoch=epoch)
        return place, [member for pairs in found for member, _ in pairs]

    async def unvouched(self, members: Sequence[bytes], *, epoch: str) -> list[bytes]:
        """Return those of the members that their user does not vouch for. O(members)."""
        parts = [member.partition(TERMINATOR.encode()) for member in members]
        held = await self._many("HMGET", self._keys.users, [user_id for _, _, user_id in parts], epoch=epoch)
        return [
            member
            for member, (encoded, _, _), value in zip(members, parts, held, strict=True)
            if not encoded or value is None or value.partition(b"|")[2] != encoded
        ]

    async def strangers(self, members: Sequence[bytes], *, epoch: str) -> list[bytes]:
        """Return those of the members that their user does not vouch for and that still are on the board."""
        # In this order: a member that has just gone is none, and one that has just come is somebody's in Postgres.
        suspects = await self.unvouched(members, epoch=epoch)
        scores = await self._many("ZMSCORE", self._keys.board, suspects, epoch=epoch)
        return [member for member, score in zip(suspects, scores, strict=True) if score is not None]

    async def peek(self, ids: Sequence[UserId], *, epoch: str) -> dict[UserId, Entry]:
        """Return what the mirror holds about these users, each at one instant. O(ids)."""
        chunks = list(_chunks(ids, PEEK_IDS))
        replies = await lua.pipeline(self._client, [(lua.PEEK, *self._all_keys, epoch, *chunk) for chunk in chunks])
        return {
            user_id: Entry(held, float(score) if score else None)
            for chunk, reply in zip(chunks, replies, strict=True)
            for user_id, held, score in zip(chunk, _accepted(reply)[2::2], reply[3::2], strict=True)
        }

    async def fix(self, fixes: Sequence[Fix], *, epoch: str) -> list[bool]:
        """Repair users; per item whether it was, else something newer had come. O(items * log n)."""
        chunks = list(_chunks(fixes, FIX_ROWS))
        commands: list[lua.Command] = [(lua.FIX, *self._all_keys, epoch, *_rows(chunk)) for chunk in chunks]
        # A change that bypassed the version left the cached object valid; a board set back leaves one that is too
        # new to be replaced.
        stale = [user_object(fix.change.id) for fix in fixes if fix.want is not None]
        drops: list[lua.Command] = [("UNLINK", *keys) for keys in _chunks(stale, FIX_ROWS)]
        replies = await lua.pipeline(self._client, commands + drops)
        return [outcome == b"applied" for reply in replies[: len(chunks)] for outcome in _accepted(reply)[1:]]

    async def remove_ghosts(self, members: Sequence[bytes], *, epoch: str) -> int:
        """Remove those of the members that still nobody vouches for; returns how many. O(members * log n)."""
        chunks = _chunks(members, GHOST_MEMBERS)
        replies = await lua.pipeline(self._client, [(lua.GHOSTS, *self._all_keys, epoch, *chunk) for chunk in chunks])
        return sum(_accepted(reply)[1] for reply in replies)

    async def resync(self, miscount: int, *, epoch: str) -> bool:
        """
        Make the board expect as many members as it has; False if the miscount is no longer this one.

        Then members were lost or added by hand meanwhile, and calling the board whole would hide it.
        """
        keys = (2, self._keys.board, self._keys.state)
        (reply,) = await lua.pipeline(self._client, [(lua.RESYNC, *keys, epoch, miscount)])
        return bool(_accepted(reply)[0] == b"ok")

    async def mark_repair(self) -> None:
        """Have the board known as one that is being repaired, for `REPAIR_MS`."""
        await lua.pipeline(self._client, [("SET", self._keys.repair, "1", "PX", REPAIR_MS)])

    async def note(self) -> bytes | None:
        """Return what was noted last, None if that is a day ago."""
        (reply,) = await lua.pipeline(self._client, [("GET", self._keys.reconcile)])
        return bytes(reply) if reply is not None else None

    async def take_note(self, note: bytes) -> None:
        """Keep a note for a day."""
        await lua.pipeline(self._client, [("SET", self._keys.reconcile, note, "EX", NOTE_SECONDS)])

    async def drop_note(self) -> None:
        """Forget it; the repair is over too."""
        await lua.pipeline(self._client, [("UNLINK", self._keys.reconcile, self._keys.repair)])

    async def leave(self, outcome: bytes) -> None:
        """Keep how a reconciliation ended, for those who watch, for a week."""
        await lua.pipeline(self._client, [("SET", self._keys.last_reconcile, outcome, "EX", OUTCOME_SECONDS)])

    async def _scan(self, command: str, key: str, place: str, *, epoch: str) -> tuple[str, list[Any]]:
        found = []
        for _ in range(SCANS):
            reply, held_epoch = await lua.pipeline(
                self._client, [(command, key, place, "COUNT", SCAN_COUNT), ("HGET", self._keys.state, "epoch")]
            )
            if held_epoch != epoch.encode():
                raise Refused
            place = str(reply[0])
            found.append(reply[1])
            if place == "0":
                break
        return place, found

    async def _many(self, command: str, key: str, arguments: Sequence[Any], *, epoch: str) -> list[Any]:
        commands: list[lua.Command] = [(command, key, *chunk) for chunk in _chunks(arguments, SCAN_COUNT)]
        *replies, held_epoch = await lua.pipeline(self._client, [*commands, ("HGET", self._keys.state, "epoch")])
        if held_epoch != epoch.encode():
            raise Refused
        return [item for reply in replies for item in reply]


def _accepted(reply: Sequence[Any]) -> Sequence[Any]:
    if reply[0] == b"epoch":
        raise Refused
    return reply


def _rows(fixes: Sequence[Fix]) -> Iterator[Any]:
    for fix in fixes:
        change = fix.change
        yield from (change.id, change.version)
        yield from ("-", "") if change.rating is None else (change.rating, encode(change.username or ""))
        yield "" if fix.want is None else fix.want


def _chunks(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
