"""What "the mirror equals Postgres" means in tests: every row, and every mark that vouches for them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
import redis

from service.errors import LadderError
from service.order import encode, member
from service.ranking.ladder import Ladder
from service.settings import Settings


async def ready(ladder: Ladder, seconds: float = 20) -> None:
    """Wait until the mirror answers."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = await ladder.mirror_state()
        except LadderError:
            state = None
        if state and ladder.trusts(state):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the mirror did not become ready")


async def assert_mirror_equals_ledger(settings: Settings) -> None:
    """Compare the whole board, byte for byte and in order, and the versions behind it."""
    expected, versions = ledger_board(settings)
    board, users, size = mirror_board(settings)

    assert expected == board
    assert versions == users
    assert len(board) == size


def ledger_board(settings: Settings) -> tuple[list[tuple[bytes, float]], dict[bytes, bytes]]:
    """What the board and the users hash should hold, from SQL."""
    with psycopg.connect(settings.database_url) as connection:
        rows = connection.execute(
            "SELECT id, username, rating, version FROM users ORDER BY rating DESC, username"
        ).fetchall()
    return (
        [(member(name, user_id).encode(), float(rating)) for user_id, name, rating, _ in rows],
        {user_id.encode(): f"{version}|{encode(name)}".encode() for user_id, name, _, version in rows},
    )


def mirror_board(settings: Settings) -> tuple[list[tuple[bytes, float]], dict[bytes, bytes], int]:
    """What the board and the users hash (without tombstones) do hold, and the size it believes in."""
    with redis.Redis.from_url(settings.redis_url, protocol=2) as client:
        return board_of(client)


def board_of(client: Any) -> tuple[list[tuple[bytes, float]], dict[bytes, bytes], int]:
    """The same over a connection that is there, which speaks RESP2."""
    board = [(name, score) for name, score in client.zrevrange("{ladder}:board", 0, -1, withscores=True)]
    users = {user_id: held for user_id, held in client.hgetall("{ladder}:users").items() if held[-1:] != b"|"}
    return board, users, int(client.hget("{ladder}:state", "n") or 0)
