"""What a user costs in Redis, by the server's own account."""

from __future__ import annotations

import redis

from service.model import UserId, new_user_id
from service.order import member
from tests.lua.calls import KEYS, Row, Scripts
from tests.servers.own_redis import own_redis

USERS = 20_000
BYTES = 300
"""For each user; 196 in Valkey 9.1, 278 in Redis 7.0."""
TIMES = 1.9
"""The memory of a bare sorted set of the same members; 1.81 and 1.73."""
BARE = "bare"


def test_a_user_costs_three_hundred_bytes_and_less_than_twice_a_bare_sorted_set() -> None:
    """With UUIDs as ids. Beside the member of the set there is the id once more, with the version and the name."""
    rows = [Row(new_user_id(), 10**9 + n, 100 + n * 7919 % 4901, f"player_{n:06}") for n in range(USERS)]
    with own_redis() as server:
        server.start()
        with redis.Redis.from_url(server.url, protocol=2, decode_responses=True) as client:
            Scripts(client).start(*rows)
            held = sum(client.memory_usage(key, samples=0) for key in (KEYS.board, KEYS.users))
            client.zadd(BARE, {member(row.name, UserId(row.id)): row.rating or 0 for row in rows})
            bare = client.memory_usage(BARE, samples=0)

    assert BYTES * USERS >= held
    assert TIMES * bare >= held
