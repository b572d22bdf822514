"""Users: create, look up, rate, search by name."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from litestar import Request, Response, get, post, put

from service.api.answers import json_response, rank_headers
from service.api.idempotency import HEADER, REPLAYED_HEADER, once_only
from service.api.inputs import (
    TOKEN_HEADER,
    body,
    demand,
    not_reserved,
    query,
    user_id,
)
from service.api.operation import FRESHNESS, READ_HEADERS, WRITE_HEADERS, Operation, Says
from service.api.preconditions import has_tag, wanted_versions
from service.api.readers import some_text, whole
from service.model import (
    DEFAULT_RATING,
    MAX_RATING,
    MIN_RATING,
    RESERVED_IDS,
    USER_ID,
    USERNAME,
    NewUser,
    UserId,
    Version,
    new_user_id,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.api.asgi import Headers
    from service.model import Placed, Standing, User
    from service.ranking.answers import Answer
    from service.ranking.ladder import Ladder
    from service.ranking.writing import Written

Rating = Annotated[int, msgspec.Meta(ge=MIN_RATING, le=MAX_RATING)]
Username = Annotated[str, msgspec.Meta(pattern="^" + USERNAME.pattern)]
NewId = Annotated[
    str, msgspec.Meta(pattern="^" + USER_ID.pattern, extra_json_schema={"not": {"enum": sorted(RESERVED_IDS)}})
]


class CreateUser(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /users."""

    username: Username
    rating: Rating = DEFAULT_RATING
    id: NewId | msgspec.UnsetType = msgspec.UNSET


class SetRating(msgspec.Struct, forbid_unknown_fields=True):
    """Body of PUT /users/{id}/rating."""

    rating: Rating


class UserView(msgspec.Struct):
    """A user and where they stand, as every answer shows it."""

    id: UserId
    username: str
    rating: int
    rank: int | None
    position: int | None
    version: Annotated[Version, msgspec.Meta(description="Grows with every change of the user.")]
    created_at: datetime
    updated_at: datetime


class RatedView(UserView):
    """The answer to a changed rating."""

    previous_rating: int | None
    previous_rank: int | None


class Found(msgspec.Struct):
    """The answer to a search."""

    items: list[UserView]


_SINCE = datetime(2026, 11, 22, 20, 25, 40, 793135, UTC)
ADA = UserView(UserId("ada"), "Ada.Lovelace", 2700, 1, 1, Version(10_002), _SINCE, _SINCE + timedelta(seconds=20))
RATED_ADA = RatedView(**msgspec.structs.asdict(ADA), previous_rating=1815, previous_rank=1549)

_CREATE = Operation(
    tag="Users",
    summary="Create a user",
    body=CreateUser("Ada.Lovelace", 2700, "ada"),
    headers=(HEADER,),
    answers={201: Says("The user.", ADA, ("Location", *WRITE_HEADERS, REPLAYED_HEADER))},
    problems=("username-taken", "id-taken", "idempotency-mismatch"),
)
_GET = Operation(
    tag="Users",
    summary="A user and their place",
    headers=("If-None-Match", *FRESHNESS),
    answers={
        200: Says("The user.", ADA, ("ETag", *READ_HEADERS)),
        304: Says("Neither the user nor their place has changed.", headers=("ETag", *READ_HEADERS)),
    },
    problems=("not-found",),
)
_RATE = Operation(
    tag="Users",
    summary="Set a rating",
    headers=("If-Match",),
    body=SetRating(2700),
    answers={200: Says("The user, and the rating and rank before.", RATED_ADA, WRITE_HEADERS)},
    problems=("not-found", "precondition-failed"),
)
_SEARCH = Operation(
    tag="Users",
    summary="Search by name",
    headers=FRESHNESS,
    answers={200: Says("Users, ordered by name in lower case; none if none is named so.", Found([ADA]), READ_HEADERS)},
)
_SEARCH_QUERY = {
    "username": some_text(required=True, about="What the name begins with, regardless of case."),
    "limit": whole(1, 100, default=20, about="How many users at most."),
}

_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z")


def user_view(user: User, place: Standing | Placed) -> UserView:
    """Return a user as answers show them."""
    return UserView(
        user.id, user.username, user.rating, place.rank, place.position, user.version,
        user.created_at, user.updated_at,
    )  # fmt: skip


def tag_of(view: UserView) -> str:
    """Return the tag of an answer that shows a user and their place."""
    return f"v{view.version}-{view.rank}-{view.position}"


def raw_write_headers(written: Written) -> Headers:
    """Say which version was written, what the mirror made of it, and whether an earlier request had written it."""
    return [
        (b"etag", b'"v%d"' % written.user.version),
        (b"x-mirror-write", written.placed.outcome.encode()),
        (TOKEN_HEADER.lower().encode(), str(written.token).encode()),
        *([(REPLAYED_HEADER.lower().encode(), b"true")] if written.replayed else []),
    ]


def write_headers(written: Written) -> dict[str, str]:
    """Say the same to the framework."""
    return {name.decode(): value.decode() for name, value in raw_write_headers(written)}


def rated_view(written: Written) -> RatedView:
    """Return a changed rating as answers show it."""
    user, placed = written.user, written.placed
    return RatedView(
        user.id, user.username, user.rating, placed.rank, placed.position, user.version,
        user.created_at, user.updated_at, written.previous_rating, placed.previous_rank,
    )  # fmt: skip


def rated_response(written: Written) -> Response[bytes]:
    """Return the answer to a changed rating."""
    return json_response(rated_view(written), headers=write_headers(written))


def _ladder(request: Request[Any, Any, Any]) -> Ladder:
    ladder: Ladder = request.app.state.ladder
    return ladder


@post("/users", opt={"writes": True, "doc": _CREATE})
async def create_user(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Create a user."""
    asked = await body(request, CreateUser)
    new_id = new_user_id() if asked.id is msgspec.UNSET else not_reserved(asked.id)
    once = once_only(request, asked)
    written = await _ladder(request).create(NewUser(new_id, asked.username, asked.rating), once=once)
    location = f"{request.app.state.public_path(request.scope)}/users/{written.user.id}"
    headers = {"Location": location, **write_headers(written)}
    return json_response(user_view(written.user, written.placed), status=201, headers=headers)


@get("/users/{user_id:str}", opt={"doc": _GET})
async def get_user(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return a user and where they stand; 304 while neither they nor their place have changed."""
    answer = await _ladder(request).user(user_id(request), demand=demand(request))
    view = user_view(answer.value.user, answer.value.standing)
    tag = tag_of(view)
    headers = {"ETag": f'"{tag}"', **rank_headers([answer])}
    if has_tag(request, tag):
        return Response(b"", status_code=304, headers=headers, media_type="application/json")
    return json_response(view, headers=headers)


@put("/users/{user_id:str}/rating", opt={"writes": True, "doc": _RATE})
async def put_rating(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Set a user's rating."""
    target, wanted = user_id(request), wanted_versions(request)
    asked = await body(request, SetRating)
    written = await _ladder(request).rate(target, asked.rating, wanted=wanted)
    return rated_response(written)


@get("/users/search", opt={"long": True, "query": _SEARCH_QUERY, "doc": _SEARCH})
async def search_users(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return users whose name begins so, regardless of case."""
    asked = query(request)
    prefix, wanted = asked["username"], demand(request)
    # No user's name has another character, so the answer is known; `%` and `_` never meet SQL's LIKE.
    ladder = _ladder(request)
    answers = await ladder.search(prefix, limit=asked["limit"], demand=wanted) if _PREFIX.match(prefix) else []
    found = [user_view(answer.value.user, answer.value.standing) for answer in answers]
    # Nobody was ranked: the headers say what would have.
    ranked: Sequence[Answer[Any]] = answers or [(await ladder.page(limit=1, demand=wanted))[0]]
    return json_response(Found(found), headers=rank_headers(ranked))
