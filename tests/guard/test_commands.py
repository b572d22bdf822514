"""Each script makes as many calls for so many items on a board of a hundred thousand as on one of a hundred."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import redis

from service.model import UserId
from service.order import encode, member
from service.store import lua
from service.store.lua import Script
from tests.lua.calls import BOARD_STATE, BOARD_STATE_USERS, BOARD_USERS_STATE, KEYS, SOURCE, Row, Scripts
from tests.servers.own_redis import own_redis

SMALL, LARGE = 100, 100_000
ITEMS = (1, 40)
TIED = 1500
CHEAP = {
    *("hget", "hmget", "hset", "hincrby", "get", "mget", "set", "time", "type", "unlink"),
    *("zadd", "zcard", "zcount", "zmscore", "zrange", "zrem", "zrevrange", "zrevrank", "zscore"),
}
"""O(1) or O(log n) an item; what the ranges read is bounded by their arguments."""


class Board(NamedTuple):
    """A board of one tie, the worst case for places, alone in its database."""

    scripts: Scripts
    rows: list[Row]

    def calls(self, script: Script, keys: Sequence[str], *arguments: Any) -> Counter[str]:
        """The commands that a call makes inside the server."""
        self.scripts.client.execute_command("SCRIPT", "LOAD", script.text)
        before = self._called()
        reply = self.scripts.call(script, keys, *arguments)
        made = self._called() - before
        assert reply[0] in ("ok", "stored"), reply
        assert 1 == made.pop("evalsha")
        made.pop("info")
        return made

    def _called(self) -> Counter[str]:
        stats: dict[str, dict[str, int]] = self.scripts.client.info("commandstats")
        return Counter({name.removeprefix("cmdstat_"): told["calls"] for name, told in stats.items()})


@pytest.fixture(scope="module")
def boards() -> Iterator[list[Board]]:
    """A small one and a large one, on a server that nobody else asks."""
    with own_redis() as server:
        server.start()
        made = []
        for number, size in enumerate((SMALL, LARGE)):
            client = redis.Redis.from_url(server.url, db=number, protocol=2, decode_responses=True)
            rows = [Row(f"id-{row:06}", 1000 + row, TIED, f"name{row:06}") for row in range(size)]
            made.append(Board(Scripts(client), rows))
            made[-1].scripts.start(*rows)
        yield made
        for board in made:
            board.scripts.client.close()


class Case(NamedTuple):
    """A script, its arguments for some rows, and the calls that it may make: in all, for each item, and that times log2 n."""

    script: Script
    keys: Sequence[str]
    arguments: Callable[[Board, list[Row]], Sequence[Any]]
    fixed: int
    each: int = 0
    each_log: int = 0


def fields(rows: list[Row], *, version: int, before: bool = False) -> list[Any]:
    """Rows as `apply` or `put` takes them: of that version, with a rating of their own."""
    changed = [row._replace(version=version, rating=TIED + 1 + number, before=TIED) for number, row in enumerate(rows)]
    return [field for row in changed for field in (row.fields_and_before() if before else row.fields())]


def marks(board: Board) -> Sequence[Any]:
    """What precedes the rows of `apply`."""
    return ("epoch", board.scripts.state("tok"), "next", "1", "a", "1", board.scripts.now_ms(), "1")


def settled(board: Board) -> Sequence[Any]:
    """The arguments of `compact`, for a board that is read from the server that fed it."""
    board.scripts.client.hset(KEYS.state, "run", "run")
    return ("epoch", "epoch", "next", 0, 0, "run", 0)


_versions = iter(range(10**6, 10**7))

CASES = {
    "rank": Case(lua.RANK, BOARD_USERS_STATE, lambda _, rows: (SOURCE, *(row.id for row in rows)), 4, 3),
    "rows_of": Case(lua.ROWS_OF, BOARD_USERS_STATE, lambda _, rows: (SOURCE, *(row.id for row in rows)), 5, 2),
    "neighbors": Case(lua.NEIGHBORS, BOARD_STATE_USERS, lambda _, rows: (SOURCE, rows[0].id, len(rows)), 7),
    "histogram": Case(lua.HISTOGRAM, BOARD_STATE_USERS, lambda _, rows: (SOURCE, 1480, 1479 + len(rows), 1), 9, 1),
    "slice_at": Case(lua.SLICE_AT, BOARD_STATE_USERS, lambda _, rows: (SOURCE, len(rows), 20), 5),
    "slice_after": Case(
        lua.SLICE_AFTER, BOARD_STATE_USERS, lambda _, rows: (SOURCE, len(rows), TIED, encode(rows[0].name)), 8, 0, 1
    ),
    "a write that must show": Case(
        lua.SLICE_AT, BOARD_STATE_USERS, lambda _, rows: (SOURCE, 10, 0, rows[0].id, 1, rows[0].id, 1), 7
    ),
    "put": Case(
        lua.PUT,
        BOARD_USERS_STATE,
        lambda _, rows: (SOURCE, *fields(rows, version=next(_versions), before=True)),
        *(10, 5),
    ),
    "put that lost the race": Case(
        lua.PUT,
        BOARD_USERS_STATE,
        lambda _, rows: (SOURCE, *(field for row in rows for field in row._replace(version=1, before=TIED).fields_and_before())),
        *(9, 8, 1),
    ),
    "apply": Case(lua.APPLY, BOARD_USERS_STATE, lambda board, rows: (*marks(board), *fields(rows, version=next(_versions))), 10),
    "fix": Case(
        lua.FIX,
        BOARD_USERS_STATE,
        lambda _, rows: (
            "epoch",
            *(field for row in rows for field in (*row._replace(version=next(_versions)).fields(), "")),
        ),
        5,
    ),
    "ghosts": Case(
        lua.GHOSTS,
        BOARD_USERS_STATE,
        lambda _, rows: ("epoch", *(member(f"not-{row.name}", UserId(row.id)) for row in rows)),
        *(2, 2),
    ),
    "peek": Case(lua.PEEK, BOARD_USERS_STATE, lambda _, rows: ("epoch", *(row.id for row in rows)), 2, 2),
    "resync": Case(lua.RESYNC, BOARD_STATE, lambda *_: ("epoch", 0), 3),
    "compact": Case(lua.COMPACT, [KEYS.state], lambda board, _: settled(board), 2),
    "sweep": Case(lua.SWEEP, [KEYS.users, KEYS.state], lambda _, rows: ("epoch", *(row.id for row in rows)), 3),
    "store_objects": Case(lua.STORE_OBJECTS, ["user:a"], lambda *_: ("0123abcd", 1, "{}", 1000), 2),
    "take": Case(lua.TAKE, ["bucket:a"], lambda *_: (10, 20, 1, 0), 3),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_calls_of_a_script_do_not_depend_on_the_board(boards: list[Board], name: str) -> None:
    """A bounded number for each item; only a place inside a tie is searched for, in log2 of it."""
    case = CASES[name]
    for items in ITEMS:
        made = [
            board.calls(case.script, case.keys, *case.arguments(board, board.rows[-items - 1 : -1])) for board in boards
        ]
        for board, calls in zip(boards, made, strict=True):
            search = case.each_log * math.ceil(math.log2(len(board.rows)) + 1)
            assert case.fixed + (case.each + search) * items >= calls.total(), calls
            assert CHEAP >= set(calls)
        if not case.each_log:
            assert made[0] == made[1]


def test_every_script_is_counted() -> None:
    """But for the one that empties the board."""
    assert set(lua.ALL) - {lua.BEGIN} == {case.script for case in CASES.values()}


def test_emptying_a_board_is_one_unlink_whatever_it_holds(boards: list[Board]) -> None:
    """Freed in the background; on boards of this test's own."""
    made = []
    for number, board in enumerate(boards):
        keys = [f"{{emptied}}:{part}" for part in "abc"]
        board.scripts.client.zadd(keys[0], {str(row): row for row in range(1 + 10_000 * number)})
        made.append(board.calls(lua.BEGIN, keys, "", "epoch", "token", SOURCE, "1", 0, 1))

    assert made[0] == made[1]
    assert 4 >= made[0].total()
