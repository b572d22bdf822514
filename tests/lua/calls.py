"""Calls of the raw scripts over one board, and the board as it lies in Redis."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import redis
from redis.exceptions import NoScriptError

from service.model import UserId
from service.order import decode, encode, member
from service.store import lua
from service.store.keys import BoardKeys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.store.lua import Script

KEYS = BoardKeys.of("ladder")
BOARD_USERS_STATE = (KEYS.board, KEYS.users, KEYS.state)
BOARD_STATE = (KEYS.board, KEYS.state)
BOARD_STATE_USERS = (KEYS.board, KEYS.state, KEYS.users)
SOURCE = "here"
MAX_ROWS = 200


class Row(NamedTuple):
    """A user for put and page; without a rating: that the user is gone. Only put says the rating `before`."""

    id: str
    version: int
    rating: int | None = None
    name: str = ""
    before: int | None = None

    def fields(self) -> tuple[Any, ...]:
        """What a page says of the user."""
        return (self.id, self.version, "-" if self.rating is None else self.rating, encode(self.name))

    def fields_and_before(self) -> tuple[Any, ...]:
        """What a put says of the user."""
        return (*self.fields(), "" if self.before is None else self.before)


class Contents(NamedTuple):
    """Everything that Redis holds; the board in its own order, as (name, id, rating)."""

    board: list[tuple[str, str, int]]
    users: dict[str, str]
    state: dict[str, str]
    others: dict[str, str]


class Scripts:
    """Every script, called with what a test names and with what a healthy caller would send for the rest."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._tokens = (f"token-{number}" for number in itertools.count(1))

    def call(self, script: Script, keys: Sequence[str], *arguments: Any) -> list[Any]:
        """Call a script by its digest, and load it when Redis does not know it."""
        command = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        try:
            reply = self.client.execute_command(*command)
        except NoScriptError:
            self.client.execute_command("SCRIPT", "LOAD", script.text)
            reply = self.client.execute_command(*command)
        assert isinstance(reply, list)
        return reply

    def begin(
        self,
        *,
        seen: str = "",
        epoch: str = "epoch",
        token: str = "token",
        source: str = SOURCE,
        checkpoint_xact: str = "700",
        floor: int = 0,
    ) -> list[Any]:
        """Empty the board."""
        return self.call(lua.BEGIN, BOARD_USERS_STATE, seen, epoch, token, source, checkpoint_xact, floor, 1)

    def apply(
        self,
        *rows: Row,
        epoch: str = "epoch",
        token: str | None = None,
        next_token: str | None = None,
        checkpoint: tuple[str, str] = ("", ""),
        loaded: str = "",
        applied: int | str = "",
        ready: str = "",
    ) -> list[Any]:
        """Apply a page; without a token, as the one who wrote the page before it."""
        presented = self.state("tok") if token is None else token
        marks = (epoch, presented, next_token or next(self._tokens), *checkpoint, loaded, applied, ready)
        return self.call(lua.APPLY, BOARD_USERS_STATE, *marks, *(field for row in rows for field in row.fields()))

    def start(self, *rows: Row, floor: int = 0) -> None:
        """Begin a board, load the rows and declare it ready."""
        assert self.begin(seen=self.state("epoch"), floor=floor) == ["ok"]
        for first in range(0, len(rows), MAX_ROWS):
            self.apply(*rows[first : first + MAX_ROWS])
        assert self.apply(applied=self.now_ms(), ready="1") == ["ok", 0]

    def put(self, *rows: Row, source: str = SOURCE) -> list[Any]:
        """Put rows; returns the status, then (outcome, rank, position, rank before) per row, without the lag."""
        fields = (field for row in rows for field in row.fields_and_before())
        reply = self.call(lua.PUT, BOARD_USERS_STATE, source, *fields)
        return [reply[0], *zip(*[iter(reply[2:])] * 4, strict=True)]

    def fix(self, *rows: tuple[Row, int | str], epoch: str = "epoch") -> list[Any]:
        """Repair users; each row with the version that it wants."""
        fields = (field for row, want in rows for field in (*row.fields(), want))
        return self.call(lua.FIX, BOARD_USERS_STATE, epoch, *fields)

    def rank(self, *ids: str, source: str = SOURCE) -> list[Any]:
        """Look users up; returns status, size and lag, then (version, rating, rank, position) per id."""
        reply = self.call(lua.RANK, BOARD_USERS_STATE, source, *ids)
        return [*reply[:3], *zip(*[iter(reply[3:])] * 4, strict=True)]

    def slice_at(self, limit: int, offset: int, *, source: str = SOURCE) -> list[Any]:
        """Read rows after a number of rows."""
        return self.call(lua.SLICE_AT, BOARD_STATE, source, limit, offset)

    def slice_after(self, limit: int, rating: int, name: str, *, source: str = SOURCE) -> list[Any]:
        """Read rows after a point of the order."""
        return self.call(lua.SLICE_AFTER, BOARD_STATE, source, limit, rating, encode(name))

    def state(self, field: str) -> str:
        """Return a field of the state, "" if it is not there."""
        return str(self.client.hget(KEYS.state, field) or "")

    def now_ms(self) -> int:
        """Return the server's clock."""
        seconds, micros = self.client.execute_command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def contents(self) -> Contents:
        """Return everything that Redis holds."""
        with self.client.pipeline(transaction=False) as pipe:
            pipe.execute_command("ZREVRANGE", KEYS.board, 0, -1, "WITHSCORES")
            pipe.hgetall(KEYS.users)
            pipe.hgetall(KEYS.state)
            pipe.keys("*")
            board, users, state, keys = pipe.execute()
        others = {key: str(self.client.get(key)) for key in keys if key not in BOARD_USERS_STATE}
        return Contents(_rows(board), users, state, others)

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Assert that the block changes nothing in Redis."""
        before = self.contents()
        yield

        assert before == self.contents()

    def remove_by_hand(self, row: Row) -> None:
        """Take a user's member from the board behind the scripts' back."""
        assert self.client.zrem(KEYS.board, member(row.name, UserId(row.id))) == 1


def rows_of(reply: list[Any]) -> list[tuple[str, str, int]]:
    """The rows of a slice's reply, as (name, id, rating)."""
    return _rows(reply[5])


def _rows(flat: list[str]) -> list[tuple[str, str, int]]:
    return [(*decode(name), int(score)) for name, score in zip(flat[::2], flat[1::2], strict=True)]
