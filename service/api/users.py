"""Users: create, look up, rate, search by name."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from litestar import Request, Response, get, post, put

from service.api.answers import json_response, rank_headers
from service.api.inputs import (
    TOKEN_HEADER,
    body,
    demand,
    etags,
    header_list,
    not_reserved,
    query,
    some_text,
    user_id,
    wanted_version,
    whole,
)
from service.errors import Invalid
from service.model import (
    DEFAULT_RATING,
    MAX_RATING,
    MIN_RATING,
    USER_ID,
    USERNAME,
    NewUser,
    UserId,
    Version,
    new_user_id,
)

if TYPE_CHECKING:
    from service.model import Placed, Standing, User
    from service.ranking.ladder import Ladder, Written

Rating = Annotated[int, msgspec.Meta(ge=MIN_RATING, le=MAX_RATING)]


class CreateUser(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /users."""

    username: Annotated[str, msgspec.Meta(pattern="^" + USERNAME.pattern)]
    rating: Rating = DEFAULT_RATING
    id: Annotated[str, msgspec.Meta(pattern="^" + USER_ID.pattern)] | msgspec.UnsetType = msgspec.UNSET


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
    version: Version
    created_at: datetime
    updated_at: datetime


class RatedView(UserView):
    """The answer to a changed rating."""

    previous_rating: int | None
    previous_rank: int | None


class Found(msgspec.Struct):
    """The answer to a search."""

    items: list[UserView]


_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z")


def _view(user: User, place: Standing | Placed) -> UserView:
    return UserView(
        user.id, user.username, user.rating, place.rank, place.position, user.version,
        user.created_at, user.updated_at,
    )  # fmt: skip


def _write_headers(written: Written) -> dict[str, str]:
    return {
        "ETag": f'"v{written.user.version}"',
        "X-Mirror-Write": written.placed.outcome,
        TOKEN_HEADER: str(written.token),
    }


def _ladder(request: Request[Any, Any, Any]) -> Ladder:
    ladder: Ladder = request.app.state.ladder
    return ladder


@post("/users", opt={"writes": True})
async def create_user(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Create a user."""
    asked = await body(request, CreateUser)
    new_id = new_user_id() if asked.id is msgspec.UNSET else not_reserved(asked.id)
    written = await _ladder(request).create(NewUser(new_id, asked.username, asked.rating))
    headers = {"Location": f"/users/{written.user.id}", **_write_headers(written)}
    return json_response(_view(written.user, written.placed), status=201, headers=headers)


@get("/users/{user_id:str}")
async def get_user(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return a user and where they stand; 304 while neither they nor their place have changed."""
    answer = await _ladder(request).user(user_id(request), demand=demand(request))
    view = _view(answer.value.user, answer.value.standing)
    tag = f"v{view.version}-{view.rank}-{view.position}"
    headers = {"ETag": f'"{tag}"', **rank_headers([answer])}
    known = header_list(request, "if-none-match")
    if known is not None and _matches(known, tag):
        return Response(b"", status_code=304, headers=headers, media_type="application/json")
    return json_response(view, headers=headers)


def _matches(header: str, tag: str) -> bool:
    if header == "*":
        return True
    try:
        return any(known == tag for _, known in etags(header))
    except ValueError:
        return False


@put("/users/{user_id:str}/rating", opt={"writes": True})
async def put_rating(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Set a user's rating."""
    target, wanted = user_id(request), wanted_version(request)
    asked = await body(request, SetRating)
    written = await _ladder(request).rate(target, asked.rating, wanted=wanted)
    user, placed = written.user, written.placed
    view = RatedView(
        user.id, user.username, user.rating, placed.rank, placed.position, user.version,
        user.created_at, user.updated_at, written.previous_rating, placed.previous_rank,
    )  # fmt: skip
    return json_response(view, headers=_write_headers(written))


@get("/users/search", opt={"query": {"username": some_text, "limit": whole(1, 100)}})
async def search_users(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return users whose name begins so, regardless of case."""
    asked = query(request)
    if "username" not in asked:
        raise Invalid(("username", "is required"))
    prefix, wanted = asked["username"], demand(request)
    # No user's name has another character, so the answer is known; `%` and `_` never meet SQL's LIKE.
    if not _PREFIX.match(prefix):
        return json_response(Found([]), headers=rank_headers([]))
    answers = await _ladder(request).search(prefix, limit=asked.get("limit", 20), demand=wanted)
    found = [_view(answer.value.user, answer.value.standing) for answer in answers]
    return json_response(Found(found), headers=rank_headers(answers))
