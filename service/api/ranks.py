"""Where users stand: one among all, one among neighbours, and those of a list among each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from litestar import Request, Response, get, post

from service.api.answers import json_response, rank_headers
from service.api.inputs import body, demand, query, refuse_repeated, user_id
from service.api.operation import FRESHNESS, READ_HEADERS, Operation, Says
from service.api.readers import whole
from service.model import USER_ID, Row, UserId
from service.ranking.answers import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.model import Roster
    from service.ranking.answers import Ranked
    from service.ranking.standings import Standings

MAX_LIST = 1000
MAX_LIST_BYTES = 1024 * 1024
"""A thousand ids of 64 characters do not fit into what other bodies may have."""

Id = Annotated[str, msgspec.Meta(pattern="^" + USER_ID.pattern)]


class AskRanks(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /ranks."""

    user_ids: Annotated[
        list[Id], msgspec.Meta(min_length=1, max_length=MAX_LIST, extra_json_schema={"uniqueItems": True})
    ]


Percentile = Annotated[
    float, msgspec.Meta(ge=0, le=100, description="Percent of the users who have this rating or a lower one.")
]


class RankView(msgspec.Struct):
    """Where a user stands among all."""

    id: UserId
    rating: int
    rank: int
    position: int
    total: int
    percentile: Percentile


class Neighbors(msgspec.Struct):
    """Consecutive rows of the board, the user's among them."""

    items: list[Row]


class Ranks(msgspec.Struct):
    """The rows of those who were asked for, in that order, and the ids that are nobody's."""

    items: list[Row]
    not_found: list[UserId]


_ADA = Row(1, 1, UserId("ada"), "Ada.Lovelace", 2700)
_LASKER = Row(2, 2, UserId("emanuel"), "Lasker", 2668)

_RANK = Operation(
    tag="Ranks",
    summary="A user's rank",
    headers=FRESHNESS,
    answers={200: Says("Where the user stands.", RankView(UserId("ada"), 2700, 1, 1, 10_001, 100.0), READ_HEADERS)},
    problems=("not-found",),
)
_NEIGHBORS = Operation(
    tag="Ranks",
    summary="The rows around a user",
    headers=FRESHNESS,
    answers={200: Says("Consecutive rows of the board.", Neighbors([_ADA, _LASKER]), READ_HEADERS)},
    problems=("not-found",),
)
_RANKS = Operation(
    tag="Ranks",
    summary="The rows of a list of users",
    headers=FRESHNESS,
    body=AskRanks(["emanuel", "ada", "nobody"]),
    answers={200: Says("Who stands where.", Ranks([_LASKER, _ADA], [UserId("nobody")]), READ_HEADERS)},
)
_RADIUS = {"radius": whole(1, 100, default=5, about="How many rows on either side.")}


def _standings(request: Request[Any, Any, Any]) -> Standings:
    standings: Standings = request.app.state.ladder.standings
    return standings


@get("/users/{user_id:str}/rank", opt={"doc": _RANK})
async def get_rank(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return where a user stands among all: the lightest read."""
    answer = await _standings(request).rank(user_id(request), demand=demand(request))
    return json_response(rank_view(answer.value), headers=rank_headers([answer]))


def rank_view(found: Ranked) -> RankView:
    """Return a rank as answers show it."""
    share = percentile(above=found.rank - 1, total=found.total)
    return RankView(found.id, found.rating, found.rank, found.position, found.total, share or 0.0)


@get("/users/{user_id:str}/neighbors", opt={"long": True, "query": _RADIUS, "doc": _NEIGHBORS})
async def get_neighbors(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return `2 * radius + 1` rows around a user, near an end of the board too: then more of them on the other side."""
    radius = query(request)["radius"]
    answer = await _standings(request).neighbors(user_id(request), radius=radius, demand=demand(request))
    return json_response(Neighbors(answer.value.rows), headers=rank_headers([answer]))


@post("/ranks", opt={"long": True, "doc": _RANKS}, request_max_body_size=MAX_LIST_BYTES)
async def post_ranks(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the rows of up to 1000 users, ranked among all, all at one instant. A read: it needs no key."""
    wanted = demand(request)
    ids = different(await body(request, AskRanks))
    answer = await _standings(request).rows(ids, demand=wanted)
    return json_response(ranks_view(ids, answer.value), headers=rank_headers([answer]))


def different(asked: AskRanks) -> list[UserId]:
    """Return the ids that are asked for; raises `Invalid` if one comes twice."""
    ids = [UserId(text) for text in asked.user_ids]
    refuse_repeated(ids, at="user_ids[{}]")
    return ids


def ranks_view(ids: Sequence[UserId], found: Roster) -> Ranks:
    """Return rows as answers show them."""
    absent = [user_id for user_id, row in zip(ids, found.rows, strict=True) if row is None]
    return Ranks([row for row in found.rows if row], absent)
