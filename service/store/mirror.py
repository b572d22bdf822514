"""
Redis in domain verbs: the sorted set that answers ranks. The only caller of the board's scripts.

Every verb takes a batch and is one round trip. All raise `Unavailable` when Redis cannot answer; the
reads raise its subclass `NotReady` when Redis can, but must not: the board is incomplete, damaged, or
mirrors another history of Postgres than the caller's.
"""

from __future__ import annotations

import secrets
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from service.errors import Behind, NotReady
from service.model import (
    Board,
    Change,
    Checkpoint,
    Counted,
    Page,
    Placed,
    Rated,
    Removed,
    Roster,
    Standing,
    UserId,
    Version,
)
from service.order import encode
from service.store import board_replies, lua, objects, redis_settings
from service.store.connection import doubt
from service.store.keys import LAYOUT, BoardKeys, user_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.model import Around, Buckets, Token, User, Window
    from service.store.redis import Client

T = TypeVar("T")

BoardRow = tuple[UserId, Version, int | str, str]
"""What the board takes: id, version, rating or "-" of a user who is gone, encoded name."""

MAX_BUCKETS = 500
"""Buckets of one histogram: a millisecond."""
RANK_IDS = 256
"""Users in one call that ranks them: under 2 ms. Where reads carry tokens, their users come on top."""
PUT_ROWS = 100
"""Rows of one put or apply: few enough to keep every script under 2 ms."""


class Refused(Exception):
    """A batch came from somebody who does not know the board's present epoch or token; nothing was written."""


class State(msgspec.Struct, frozen=True):
    """What the board says of itself, and the server's clock (ms) at that instant."""

    layout: str
    source: str
    epoch: str
    token: str
    ready: bool
    intact: bool
    checkpoint: Checkpoint
    loaded: str
    users: int
    known: int
    """Users and deleted users that the mirror has a field of."""
    lag_ms: int | None
    """None if it is unknown, because `applied` is not a time of this server's clock."""
    now_ms: int
    run: str = ""
    """The run_id of the server that answered, "" if it does not tell it."""

    def applied_since(self, moment_ms: int) -> bool:
        """Whether all that was committed at a moment of this server's clock is on the board."""
        return self.lag_ms is not None and self.now_ms - self.lag_ms > moment_ms


class Feeding(msgspec.Struct, frozen=True):
    """
    Rows for the board, and what becomes true with them. None leaves a mark as it is.

    `applied_ms` is a time of the clock of the server whose run_id is `run`.
    """

    rows: Sequence[BoardRow] = ()
    checkpoint: Checkpoint | None = None
    loaded: str | None = None
    applied_ms: int | None = None
    ready: bool = False
    run: str = ""


def board_rows(changes: Sequence[Change]) -> list[BoardRow]:
    """Return what the board takes for these changes. O(changes)."""
    return [
        (change.id, change.version, "-", "")
        if change.rating is None
        else (change.id, change.version, change.rating, encode(change.username or ""))
        for change in changes
    ]


class Mirror:
    """The board called `board` in one Redis."""

    def __init__(self, client: Client, *, board: str = "ladder") -> None:
        self._client = client
        keys = BoardKeys.of(board)
        self._slice_keys = (3, keys.board, keys.state, keys.users)
        self._all_keys = (3, keys.board, keys.users, keys.state)
        self._keys = keys

    async def standings(
        self, ids: Sequence[UserId], *, source: str, at_once: int = RANK_IDS
    ) -> tuple[Board, dict[UserId, Standing]]:
        """Return the standings of those who are on the board; up to `at_once` of one instant. O(ids * log n)."""
        caller, chunks = lua.Caller(source), list(_chunks(ids, at_once))
        replies = await lua.pipeline(self._client, [(lua.RANK, *self._all_keys, caller, *chunk) for chunk in chunks])
        held = (board_replies.standings(chunk, reply) for chunk, reply in zip(chunks, replies, strict=True))
        # Each of them says whether it may be believed, and how far.
        boards = [self._board(reply) for reply in replies]
        unknown = any(board.lag_ms is None for board in boards)
        lag_ms = None if unknown else max(board.lag_ms or 0 for board in boards)
        return Board(boards[0].total, lag_ms), dict(chain.from_iterable(held))

    async def users(
        self, ids: Sequence[UserId], *, source: str
    ) -> tuple[Board, dict[UserId, tuple[Standing, User | None]]]:
        """Return standings with the cached users; None for a user whose object is not of that version."""
        reply, cached = await lua.pipeline(
            self._client,
            [
                (lua.RANK, *self._all_keys, lua.Caller(source), *ids),
                ("MGET", *(user_object(user_id) for user_id in ids)),
            ],
        )
        raw = dict(zip(ids, cached, strict=True))
        return self._board(reply), {
            user_id: (standing, objects.decode(raw[user_id], standing.version, source))
            for user_id, standing in board_replies.standings(ids, reply)
        }

    async def pages(self, windows: Sequence[Window], *, source: str) -> list[Page | Behind]:
        """
        Return the rows of each window; every page is read at one instant of its own. O(log n + limit) each.

        `Behind` in place of a page for which the board lacks one of the writes in the window's `since`,
        looked for at that same instant.
        """
        replies = await lua.pipeline(self._client, [self._slice(window, lua.Caller(source)) for window in windows])
        return [
            Behind() if reply[0] == b"behind" else board_replies.page(self._board(reply), reply) for reply in replies
        ]

    async def rosters(
        self, lists: Sequence[Sequence[UserId]], *, source: str
    ) -> list[tuple[Roster, dict[UserId, Version]]]:
        """Return the rows of each list, every list at one instant of its own, and the versions. O(ids * log n)."""
        caller = lua.Caller(source)
        calls: list[lua.Command] = [(lua.ROWS_OF, *self._all_keys, caller, *ids) for ids in lists]
        replies = await lua.pipeline(self._client, calls)
        return [board_replies.roster(self._board(reply), ids, reply) for ids, reply in zip(lists, replies, strict=True)]

    async def neighbors(self, asked: Sequence[Around], *, source: str) -> list[Page | Behind]:
        """Return the rows around each user, as `pages` does; no rows for one who is not on the board."""
        caller = lua.Caller(source)
        calls: list[lua.Command] = [
            (lua.NEIGHBORS, *self._slice_keys, caller, item.user_id, item.radius, *_pairs(item.since)) for item in asked
        ]
        replies = await lua.pipeline(self._client, calls)
        return [
            Behind() if reply[0] == b"behind" else board_replies.page(self._board(reply), reply) for reply in replies
        ]

    async def histograms(self, asked: Sequence[Buckets], *, source: str) -> list[Counted | Behind]:
        """Count users by rating, as `pages` does, in `MAX_BUCKETS` buckets at most. O(buckets * log n) each."""
        caller = lua.Caller(source)
        calls: list[lua.Command] = [
            (lua.HISTOGRAM, *self._slice_keys, caller, item.low, item.high, item.width, *_pairs(item.since))
            for item in asked
        ]
        replies = await lua.pipeline(self._client, calls)
        return [
            Behind() if reply[0] == b"behind" else board_replies.counted(self._board(reply), reply) for reply in replies
        ]

    def _board(self, reply: Sequence[Any]) -> Board:
        if reply[0] != b"ok":
            raise NotReady
        if reply[2] >= 0:
            return Board(reply[1], reply[2])
        # The connection may lead to a server that was the master earlier.
        doubt(self._client)
        return Board(reply[1])

    def _slice(self, window: Window, caller: lua.Caller) -> lua.Command:
        since = _pairs(window.since)
        if window.after is None:
            return (lua.SLICE_AT, *self._slice_keys, caller, window.limit, window.offset, *since)
        point = window.after
        return (
            lua.SLICE_AFTER, *self._slice_keys, caller, window.limit, point.rating, encode(point.username), *since
        )  # fmt: skip

    async def put(self, written: Sequence[Rated | Removed], *, source: str) -> tuple[int | None, list[Placed]]:
        """
        Carry committed writes over, with the users' cached objects; per write what became of it.

        A removed user's object is dropped: one that a slow reader caches afterwards is of no version that is served.

        `pending` where the board cannot say now: it is loading, of another history, or its lag is unknown. The first
        value is how far the board may lag that the ranks were counted on, in ms; None if no rank was.
        """
        caller = lua.Caller(source)
        commands: list[lua.Command] = []
        for chunk in _chunks(written, PUT_ROWS):
            rows: list[Any] = []
            for item in chunk:
                if isinstance(item, Removed):
                    rows += (item.id, item.version, "-", "", "")
                    continue
                user, before = item.user, item.previous_rating
                rows += (user.id, user.version, user.rating, encode(user.username), "" if before is None else before)
            commands.append((lua.PUT, *self._all_keys, caller, *rows))
        calls = len(commands)
        commands += objects.store([item.user for item in written if isinstance(item, Rated)], source)
        if gone := [user_object(item.id) for item in written if isinstance(item, Removed)]:
            commands.append(("UNLINK", *gone))
        replies = await lua.pipeline(self._client, commands)
        placed: list[Placed] = []
        lags: list[int] = []
        for chunk, reply in zip(_chunks(written, PUT_ROWS), replies[:calls], strict=True):
            if reply[0] == b"ok":
                lags += [reply[1]] if reply[1] != b"" else []
                placed += (
                    board_replies.removed(reply[first], reply[1])
                    if isinstance(item, Removed)
                    else board_replies.placed(*reply[first : first + 4])
                    for item, first in zip(chunk, range(2, len(reply), 4), strict=True)
                )
            else:
                placed += (Placed("pending") for _ in chunk)
        return max(lags, default=None), placed

    async def fill(self, users: Sequence[User], *, source: str) -> None:
        """Cache users that were read from Postgres; an object of a newer version stays."""
        await lua.pipeline(self._client, objects.store(users, source))

    async def state(self) -> State | None:
        """Return what the board says of itself, None if there is none or its keys hold something else. O(1)."""
        try:
            # At once: a user who is created between two of them would make a good board look damaged.
            keys = self._keys
            sizes: list[lua.Command] = [("ZCARD", keys.board), ("HLEN", keys.users), ("EXISTS", keys.repair)]
            run, (held, members, known, in_repair, (seconds, micros)) = await lua.transaction(
                self._client, [("HGETALL", keys.state), *sizes, ("TIME",)]
            )
        except NotReady:
            return None
        try:
            fields = {name.decode(): value.decode() for name, value in held.items()}
            now_ms = int(seconds) * 1000 + int(micros) // 1000
            lag_ms: int | None = now_ms - int(fields["applied"])
            # As `ready` has it in Lua.
            if now_ms < int(fields["applied"]) or (run and fields.get("run", run) not in ("", run)):
                lag_ms = None
                doubt(self._client)
            return State(
                layout=fields["fmt"],
                source=fields["src"],
                epoch=fields["epoch"],
                token=fields["tok"],
                ready=fields["ready"] == "1",
                # A repair excuses some strangers, never a users hash that is lost: whoever is renamed or deleted then
                # stays on the board under the old name.
                intact=int(fields["n"]) == members and members <= (2 * known if in_repair else known),
                checkpoint=Checkpoint(fields["cx"], fields["ci"]),
                loaded=fields["ld"],
                users=members,
                known=known,
                lag_ms=lag_ms,
                now_ms=now_ms,
                run=run,
            )
        except (KeyError, ValueError):
            return None

    async def verdict(self) -> redis_settings.Verdict:
        """Return whether this Redis is set as a mirror must be; raises `Unavailable`."""
        verdict = await redis_settings.examine(self._client)
        if verdict.is_replica:
            # It may have been the master when the connection was made: ask again over a new connection.
            doubt(self._client)
            verdict = await redis_settings.examine(self._client)
        return verdict

    async def last_reconcile(self) -> bytes | None:
        """Return what the last full reconciliation left behind, None if it was longer ago than that is kept."""
        (reply,) = await lua.pipeline(self._client, [("GET", self._keys.last_reconcile)])
        return bytes(reply) if reply is not None else None

    async def begin(self, *, seen: State | None, source: str, checkpoint: Checkpoint, floor: Version) -> None:
        """
        Empty the board and start a new epoch.

        Raises `Refused` if the epoch is no longer the one that was `seen`.
        """
        was = seen.epoch if seen else await self._broken_epoch()
        epoch, token = secrets.token_hex(8), secrets.token_hex(8)
        (reply,) = await lua.pipeline(
            self._client, [(lua.BEGIN, *self._all_keys, was, epoch, token, source, checkpoint.xact, floor, LAYOUT)]
        )
        if reply[0] != b"ok":
            raise Refused

    async def compact(self, state: State, settled: Version, settled_xact: int, *, since_ms: int) -> str | None:
        """
        Begin a new epoch in which unknown users up to a version are known to be deleted; returns its name.

        None if something that was seen in `state` is not there any more, or was not yet. Raises `Refused` if the epoch is
        another one. O(1).
        """
        if not state.run:
            return None
        epoch, token = secrets.token_hex(8), secrets.token_hex(8)
        arguments = (state.epoch, epoch, token, settled, settled_xact, state.run, since_ms)
        (reply,) = await lua.pipeline(self._client, [(lua.COMPACT, 1, self._keys.state, *arguments)])
        if reply[0] == b"epoch":
            raise Refused
        return epoch if reply[0] == b"ok" else None

    async def _broken_epoch(self) -> str:
        # A state hash that lost some of its fields may still have its epoch.
        try:
            (epoch,) = await lua.pipeline(self._client, [("HGET", self._keys.state, "epoch")])
        except NotReady:
            return ""
        return (epoch or b"").decode()

    async def feed(self, feeding: Feeding, *, epoch: str, token: str) -> tuple[int, str]:
        """
        Apply rows in order; returns how many were news and the token for the next call.

        Raises `Refused` when the board is not the one the caller knows; of the script calls none after the
        refused one wrote anything, because each must present the token of the one before it.
        """
        commands: list[lua.Command] = []
        chunks = list(_chunks(feeding.rows, PUT_ROWS)) or [()]
        for chunk in chunks:
            # The marks hold once the last row is in, and not before.
            marks = _marks(feeding if chunk is chunks[-1] else Feeding())
            following = secrets.token_hex(8)
            rows = chain.from_iterable(chunk)
            commands.append((lua.APPLY, *self._all_keys, epoch, token, following, *marks, *rows))
            token = following
        news = 0
        for reply in await lua.pipeline(self._client, commands):
            if reply[0] != b"ok":
                raise Refused
            news += reply[1]
        return news, token


def _pairs(since: Sequence[Token]) -> list[str | int]:
    return [text for token in since for text in (token.id, token.version)]


def _marks(feeding: Feeding) -> tuple[Any, ...]:
    return (
        feeding.checkpoint.xact if feeding.checkpoint else "",
        feeding.checkpoint.id if feeding.checkpoint else "",
        feeding.loaded or "",
        "" if feeding.applied_ms is None else f"{feeding.applied_ms}@{feeding.run}",
        "1" if feeding.ready else "",
    )


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
