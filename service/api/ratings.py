"""Ratings: where one would stand, and how all of them are spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, get

from service.api.answers import json_response, rank_headers
from service.api.inputs import demand, query, rating
from service.api.operation import FRESHNESS, READ_HEADERS, Operation, Says
from service.api.ranks import Percentile
from service.api.readers import whole
from service.model import MAX_RATING, MIN_RATING, QUANTILES, Buckets
from service.ranking.answers import percentile

if TYPE_CHECKING:
    from service.ranking.standings import Standings


class RatingView(msgspec.Struct):
    """Where a rating stands: null as the percentile while there is nobody."""

    rating: int
    rank: int
    percentile: Percentile | None
    users: int


class Bucket(msgspec.Struct):
    """How many users have one of these ratings, both included."""

    low: int = msgspec.field(name="from")
    high: int = msgspec.field(name="to")
    users: int


class Quantiles(msgspec.Struct):
    """The lowest ratings that at least so many percent of the users do not exceed; null while there is nobody."""

    p10: int | None = None
    p50: int | None = None
    p90: int | None = None
    p99: int | None = None


class Distribution(msgspec.Struct):
    """A histogram of all users, without gaps."""

    total: int
    buckets: list[Bucket]
    quantiles: Quantiles


_RATING = Operation(
    tag="Ratings",
    summary="Where a rating stands",
    headers=FRESHNESS,
    answers={200: Says("Where it stands.", RatingView(2668, 2, 99.99, 1), READ_HEADERS)},
)
_DISTRIBUTION = Operation(
    tag="Ratings",
    summary="How ratings are spread",
    headers=FRESHNESS,
    answers={
        200: Says(
            "The histogram.",
            Distribution(
                10_001,
                [
                    Bucket(*bounds, users)
                    for bounds, users in zip(
                        Buckets(MIN_RATING, MAX_RATING, 1000).bounds(), (744, 8518, 739, 0, 0), strict=True
                    )
                ],
                Quantiles(1103, 1500, 1894, 2222),
            ),
            READ_HEADERS,
        )
    },
)
_WIDTH = {"width": whole(1, 1000, default=50, about="How many ratings are counted together, from 100 up.")}


def _standings(request: Request[Any, Any, Any]) -> Standings:
    standings: Standings = request.app.state.ladder.standings
    return standings


@get("/ratings/{rating:str}", opt={"doc": _RATING})
async def get_rating(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return where a rating stands, or would stand if somebody had it."""
    asked = rating(request)
    answer = await _standings(request).count(Buckets(asked, asked), demand=demand(request))
    counted = answer.value
    share = percentile(above=counted.above, total=counted.board.total)
    view = RatingView(asked, 1 + counted.above, share, counted.users[0])
    return json_response(view, headers=rank_headers([answer]))


@get("/ratings/distribution", opt={"long": True, "query": _WIDTH, "doc": _DISTRIBUTION})
async def get_distribution(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return how many users have which ratings, counted at one instant, and quantiles by nearest rank."""
    buckets = Buckets(MIN_RATING, MAX_RATING, query(request)["width"])
    answer = await _standings(request).count(buckets, demand=demand(request))
    counted = answer.value
    spread = [Bucket(*bounds, users) for bounds, users in zip(buckets.bounds(), counted.users, strict=True)]
    named = dict(zip((f"p{percent}" for percent in QUANTILES), counted.quantiles, strict=False))
    view = Distribution(counted.board.total, spread, Quantiles(**named))
    return json_response(view, headers=rank_headers([answer]))
