"""Changes beside a plain rating: add to one, set many at once, rename, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from litestar import Request, Response, delete, patch, put

from service.api.answers import json_response
from service.api.idempotency import HEADER, REPLAYED_HEADER, once_only
from service.api.inputs import TOKEN_HEADER, body, refuse_repeated, user_id
from service.api.operation import WRITE_HEADERS, Operation, Says
from service.api.preconditions import wanted_versions
from service.api.users import ADA, RATED_ADA, Rating, Username, rated_response, user_view, write_headers
from service.errors import LadderError, NotFound
from service.model import MAX_RATING, USER_ID, NewRating, UserId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.ranking.ladder import Ladder
    from service.ranking.writing import Written

MAX_BULK_BYTES = 1024 * 1024
MAX_UPDATES = 1000

Id = Annotated[str, msgspec.Meta(pattern="^" + USER_ID.pattern)]
Delta = Annotated[int, msgspec.Meta(description="What is added to the rating.")]
Status = Literal["updated", "unchanged", "not_found"]


class AddToRating(msgspec.Struct, forbid_unknown_fields=True):
    """Body of PATCH /users/{id}/rating."""

    delta: Delta


class Update(msgspec.Struct, forbid_unknown_fields=True):
    """A rating to set."""

    id: Id
    rating: Rating


class SetRatings(msgspec.Struct, forbid_unknown_fields=True):
    """Body of PUT /ratings."""

    updates: Annotated[
        list[Update], msgspec.Meta(min_length=1, max_length=MAX_UPDATES, description="Of different users.")
    ]


class Rename(msgspec.Struct, forbid_unknown_fields=True):
    """Body of PATCH /users/{id}."""

    username: Username


class Updated(msgspec.Struct):
    """What came of one update."""

    id: UserId
    status: Status
    rank: int | None


class UpdatedAll(msgspec.Struct):
    """The answer to PUT /ratings: an item for each update, in their order."""

    items: list[Updated]


_ONCE = (*WRITE_HEADERS, REPLAYED_HEADER)
_ADD = Operation(
    tag="Users",
    summary="Add to a rating",
    headers=("If-Match", HEADER),
    body=AddToRating(885),
    answers={200: Says("The user, and the rating and rank before.", RATED_ADA, _ONCE)},
    problems=("not-found", "rating-out-of-range", "precondition-failed", "idempotency-mismatch"),
)
_SET_ALL = Operation(
    tag="Users",
    summary="Set many ratings",
    headers=(HEADER,),
    body=SetRatings([Update("ada", 2700), Update("nobody", 1000)]),
    answers={
        200: Says(
            "What came of each, in the request's order.",
            UpdatedAll([Updated(UserId("ada"), "updated", 1), Updated(UserId("nobody"), "not_found", None)]),
            ("X-Mirror-Write", REPLAYED_HEADER),
        )
    },
    problems=("idempotency-mismatch",),
)
# The address of a user named "search" is that of the search, which understands neither of these two.
_RENAME = Operation(
    tag="Users",
    summary="Rename a user",
    headers=("If-Match",),
    body=Rename("Ada.Lovelace"),
    answers={200: Says("The user.", ADA, WRITE_HEADERS)},
    problems=("not-found", "username-taken", "precondition-failed", "method-not-allowed"),
)
_DELETE = Operation(
    tag="Users",
    summary="Delete a user",
    headers=("If-Match",),
    answers={204: Says("The user is gone.", headers=("X-Mirror-Write", TOKEN_HEADER))},
    problems=("not-found", "precondition-failed", "method-not-allowed"),
)


def _ladder(request: Request[Any, Any, Any]) -> Ladder:
    ladder: Ladder = request.app.state.ladder
    return ladder


@patch("/users/{user_id:str}/rating", opt={"writes": True, "doc": _ADD})
async def patch_rating(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Add to a user's rating, whatever it is now. Beyond 100..5000 it is refused, and stays."""
    target, wanted = user_id(request), wanted_versions(request)
    asked = await body(request, AddToRating)
    once = once_only(request, asked)
    # More than that leads out of range from wherever it starts, and Postgres has numbers for it.
    delta = max(-MAX_RATING, min(asked.delta, MAX_RATING))
    written = await _ladder(request).rate(target, delta, wanted=wanted, relative=True, once=once)
    return rated_response(written)


@put("/ratings", opt={"long": True, "writes": True, "doc": _SET_ALL}, request_max_body_size=MAX_BULK_BYTES)
async def put_ratings(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Set the ratings of up to 1000 different users in one transaction; those who do not exist are passed over."""
    asked = await body(request, SetRatings)
    ratings = [NewRating(UserId(update.id), update.rating) for update in asked.updates]
    refuse_repeated([rating.id for rating in ratings], at="updates[{}].id")
    outcomes = await _ladder(request).rate_all(ratings, once=once_only(request, asked))
    items = [_updated(rating.id, outcome) for rating, outcome in zip(ratings, outcomes, strict=True)]
    return json_response(UpdatedAll(items), headers=_headers_of_all(outcomes))


@patch("/users/{user_id:str}", opt={"writes": True, "doc": _RENAME})
async def patch_user(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Give a user another name."""
    target, wanted = user_id(request), wanted_versions(request)
    asked = await body(request, Rename)
    written = await _ladder(request).rename(target, asked.username, wanted=wanted)
    return json_response(user_view(written.user, written.placed), headers=write_headers(written))


@delete("/users/{user_id:str}", opt={"writes": True, "doc": _DELETE}, status_code=204)
async def delete_user(request: Request[Any, Any, Any]) -> Response[None]:
    """Delete a user. Name and id are free again."""
    deleted = await _ladder(request).remove(user_id(request), wanted=wanted_versions(request))
    headers = {"X-Mirror-Write": deleted.placed.outcome, TOKEN_HEADER: str(deleted.token)}
    return Response(None, status_code=204, headers=headers)


def _updated(target: UserId, outcome: Written | LadderError) -> Updated:
    if isinstance(outcome, NotFound):
        return Updated(target, "not_found", None)
    if isinstance(outcome, LadderError):
        raise outcome
    changed = outcome.previous_rating != outcome.user.rating
    return Updated(target, "updated" if changed else "unchanged", outcome.placed.rank)


def _headers_of_all(outcomes: Sequence[Written | LadderError]) -> dict[str, str]:
    # No consistency token: it names one user, and whoever has that one need not have the others.
    written = [outcome for outcome in outcomes if not isinstance(outcome, LadderError)]
    found = {outcome.placed.outcome for outcome in written}
    whole = "pending" if "pending" in found else "superseded" if "superseded" in found else "applied"
    replayed = {REPLAYED_HEADER: "true"} if any(outcome.replayed for outcome in written) else {}
    return {"X-Mirror-Write": whole, **replayed}
