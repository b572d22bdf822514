"""What can happen to a board of 300 users, or to the users behind its back, and how a report must count it."""

from __future__ import annotations

from collections.abc import Callable

import redis

from service.model import UserId
from service.order import member
from tests.ranking.reconciling import BOARD, STATE, USERS, Session, bypassing, held, place

COUNT = 300


def all_at_once(ledger: Session, board: redis.Redis) -> None:
    board.hdel(USERS, "user1", "user2")
    board.zrem(BOARD, place(3))
    board.zadd(BOARD, {place(4): 4999, "ghost~ghost": 1500})
    bypassing(ledger, "DELETE FROM users WHERE id = 'user5'")
    ledger.execute("UPDATE users SET rating = 4000 WHERE id = 'user6'")
    bypassing(ledger, "UPDATE users SET username = 'bypassed' WHERE id = 'user7'")


DAMAGES: dict[str, tuple[Callable[[Session, redis.Redis], object], dict[str, int]]] = {
    "nothing": (lambda _, __: None, {}),
    "fields lost": (lambda _, board: board.hdel(USERS, "user1", "user2", "user3"), {"missing": 3}),
    "members lost": (lambda _, board: board.zrem(BOARD, place(1), place(2)), {"corrupt": 2, "miscount": 2}),
    "every member lost": (lambda _, board: board.delete(BOARD), {"corrupt": COUNT, "miscount": COUNT}),
    "every field lost": (lambda _, board: board.delete(USERS), {"missing": COUNT}),
    "fields and members lost": (
        lambda _, board: (board.hdel(USERS, "user1"), board.zrem(BOARD, place(1))),
        {"missing": 1, "miscount": 1},
    ),
    "strangers on the board": (
        lambda _, board: board.zadd(BOARD, {"ghost~ghost": 1500, "no-id": 3, "~user1": 1, place(1) + "x": 7}),
        {"ghost": 4, "miscount": -4},
    ),
    "a second place": (lambda _, board: board.zadd(BOARD, {member("other", UserId("user1")): 9}), {"ghost": 1, "miscount": -1}),
    "a deleted user's place": (lambda _, board: board.zadd(BOARD, {member("gone-1", UserId("gone1")): 9}), {"ghost": 1, "miscount": -1}),
    "wrong scores": (lambda _, board: board.zadd(BOARD, {place(1): 4999, place(2): 1402.5}), {"corrupt": 2}),
    "an old version": (lambda _, board: board.hset(USERS, "user2", held(1, "user-2")), {"stale": 1}),
    "a wrong name": (lambda _, board: board.hset(USERS, "user2", held(2, "another")), {"corrupt": 1}),
    "fields that cannot be read": (
        lambda _, board: board.hset(USERS, mapping={"user1": "x", "user2": "", "user3": "9" * 30 + "|x"}),
        {"corrupt": 2, "missing": 1},
    ),
    "a stranger's field that cannot be read": (lambda _, board: board.hset(USERS, "nobody", "x"), {"orphan": 1}),
    "a stranger's field": (lambda _, board: board.hset(USERS, "nobody", held(7, "nobody")), {"orphan": 1}),
    "an id Postgres cannot hold": (lambda _, board: board.hset(USERS, "nul\0", held(7, "nobody")), {"orphan": 1}),
    "a size": (lambda _, board: board.hincrby(STATE, "n", 5), {"miscount": 5}),
    "writes not carried over": (
        lambda ledger, _: (
            ledger.execute("UPDATE users SET rating = 4000 WHERE id IN ('user1', 'user2')"),
            ledger.execute("UPDATE users SET username = 'renamed' WHERE id = 'user3'"),
            ledger.execute("DELETE FROM users WHERE id = 'user4'"),
            ledger.execute("INSERT INTO users (id, username, rating) VALUES ('gone1', 'back', 1500)"),
            ledger.execute("INSERT INTO users (id, username, rating) VALUES ('new', 'new', 1500)"),
        ),
        {"stale": 4, "orphan": 1, "missing": 1},
    ),
    "ratings past the trigger": (
        lambda ledger, _: bypassing(ledger, "UPDATE users SET rating = 4000 WHERE rating = 1410"),
        {"corrupt": 6},
    ),
    "names past the trigger": (
        lambda ledger, _: bypassing(ledger, "UPDATE users SET username = id || '.b' WHERE rating = 1410"),
        {"corrupt": 6},
    ),
    "deletions past the trigger": (
        lambda ledger, _: bypassing(ledger, "DELETE FROM users WHERE rating = 1410"),
        {"orphan": 6},
    ),
    "all at once": (all_at_once, {"missing": 2, "corrupt": 3, "ghost": 1, "orphan": 1, "stale": 1}),
}  # fmt: skip
