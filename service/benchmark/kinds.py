"""What is asked over HTTP: the operations, and how their requests are made of the users' ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from service.model import MAX_RATING, MIN_RATING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

_LISTS = 2_000


class Kind(msgspec.Struct, frozen=True):
    """An operation: how its requests are made of the users' ids, and on how many connections they are sent."""

    title: str
    lines: Callable[[Sequence[str], random.Random], list[str]]
    connections: int | None = None
    bare: bool = True
    writes: bool = False


def _offsets(ids: Sequence[str], source: random.Random) -> list[str]:
    return [f"GET /leaderboard?limit=25&offset={source.randrange(max(len(ids) - 24, 1))}" for _ in range(100_000)]


def _lists(ids: Sequence[str], source: random.Random) -> list[str]:
    return [
        f"POST /ranks\t{msgspec.json.encode({'user_ids': source.sample(ids, min(100, len(ids)))}).decode()}"
        for _ in range(_LISTS)
    ]


def ratings(ids: Sequence[str], source: random.Random) -> list[str]:
    """Return a new rating for each user."""
    # Spread as the made-up users' are, so that the board keeps its shape.
    spread = (min(max(round(source.gauss(1500, 300)), MIN_RATING), MAX_RATING) for _ in ids)
    return [f'PUT /users/{user_id}/rating\t{{"rating":{rating}}}' for user_id, rating in zip(ids, spread, strict=True)]


KINDS = {
    "rank": Kind("GET /users/{id}/rank", lambda ids, _: [f"GET /users/{user_id}/rank" for user_id in ids]),
    "user": Kind("GET /users/{id}", lambda ids, _: [f"GET /users/{user_id}" for user_id in ids]),
    "page-25": Kind("GET /leaderboard?limit=25, random offsets", _offsets),
    "page-100": Kind("GET /leaderboard?limit=100, the same page", lambda _, __: ["GET /leaderboard?limit=100"]),
    "neighbors": Kind(
        "GET /users/{id}/neighbors?radius=12",
        lambda ids, _: [f"GET /users/{user_id}/neighbors?radius=12" for user_id in ids],
    ),
    "ranks-100": Kind("POST /ranks, 100 ids, one connection", _lists, connections=1),
    "put": Kind("PUT /users/{id}/rating, durable", ratings, bare=False, writes=True),
}
