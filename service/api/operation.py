"""What a handler says of itself for the API's description, in `opt["doc"]`, and the headers it can name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Says(msgspec.Struct, frozen=True):
    """One of a handler's own answers. `example` is a body, and its type is the schema; None if there is no body."""

    about: str
    example: object = None
    headers: tuple[str, ...] = ()
    media_type: str = "application/json"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """
    A handler, as its clients see it; what is longer than the summary is the handler's docstring.

    `body` is an example of the request's, and its type is the schema. `headers` are those it heeds. `problems`
    are the slugs of the refusals that are its own; those of every route, every write and every body are known.
    """

    tag: str
    summary: str
    answers: Mapping[int, Says]
    body: object = None
    headers: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Header(msgspec.Struct, frozen=True):
    """A header of requests or answers; `always` tells whether an answer that lists it cannot be without it."""

    about: str
    example: str
    schema: Mapping[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})
    always: bool = True


_WHOLE = {"type": "integer", "minimum": 0}
# Of an id that a user can have: neither a dot nor two, nor the name of a route.
_TOKEN = {"type": "string", "pattern": r"^(?!(\.{1,2}|search):[0-9]+$)[A-Za-z0-9_.:-]{1,64}:[1-9][0-9]{0,14}$"}
_TAG = {"type": "string", "pattern": '^"[^"]*"$'}

REQUEST_HEADERS = {
    "If-Match": Header(
        "Change the user only if they still are of one of these versions: ETags of any answers, or `*`. A weak tag never"
        " matches.",
        '"v10002"',
        {"type": "string", "pattern": r'^(\*|[ \t,]*(W/)?"[ !#-~]*"[ \t]*(,[ \t]*((W/)?"[ !#-~]*"[ \t]*)?)*)$'},
    ),
    "Idempotency-Key": Header(
        "Carry the request out once, however often it comes within a day; each gets the first one's answer.",
        "8e03978e-40d5-43dd-bc93-6894a57f9324",
        {"type": "string", "pattern": "^[!-~]{1,64}$"},
    ),
    "Last-Event-ID": Header("The `id` of the page that the client has already; browsers send it.", "0d9c1f0c7a2e4b5d"),
    "If-None-Match": Header("Answer 304 if the ETag is still one of these.", '"v10002-1-1"'),
    "X-Consistency-Token": Header("The token of a write that the answer must not be from before.", "ada:10002", _TOKEN),
    "Cache-Control": Header("`no-cache`: nothing that is more than two seconds old, if it can be had.", "no-cache"),
    "X-Request-Id": Header("The id that this request is to be known by, of `A-Z a-z 0-9 . _ : -`, up to 128.", "a-1"),
}
"""What a request may carry. None is required."""

RESPONSE_HEADERS = {
    "X-Request-Id": Header(
        "The request's id: the caller's, or a new one.",
        "3f2a8c52b3d04e0f9a5d1f0f4f2f7c11",
        {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    ),
    "RateLimit-Limit": Header("How many requests the client's bucket holds.", "200", _WHOLE, always=False),
    "RateLimit-Remaining": Header("How many are left in it.", "199", _WHOLE, always=False),
    "RateLimit-Reset": Header("Seconds until it is full again.", "1", _WHOLE, always=False),
    "Retry-After": Header("Seconds to wait before the next try.", "1", _WHOLE),
    "WWW-Authenticate": Header("How to show a key.", "Bearer"),
    "Cache-Control": Header(
        "`no-cache`: ask again each time; `no-store`: do not even keep it; `max-age`: keep it so many seconds.",
        "no-cache",
    ),
    "Location": Header("Address of the new user.", "/users/ada"),
    "ETag": Header("The answer's version, for If-Match and If-None-Match.", '"v10002"', _TAG),
    "X-Rank-Source": Header(
        "What ranked: the mirror, a count in Postgres, or a histogram that is up to two seconds old.",
        "redis",
        {"enum": ["redis", "postgres", "histogram"]},
    ),
    "X-Mirror-Lag-Ms": Header(
        "From the mirror: every change older than this, in milliseconds, is in.", "12", _WHOLE, always=False
    ),
    "X-Rank-As-Of": Header(
        "From a histogram: changes since then may be missing in the rank.",
        "2026-11-22T20:26:00.813907Z",
        {"type": "string", "format": "date-time"},
        always=False,
    ),
    "X-Data-Stale": Header(
        "The answer is more than two seconds old, or may lack a write, for want of better.",
        "true",
        {"const": "true"},
        always=False,
    ),
    "X-Mirror-Write": Header(
        "The mirror has the write, has a newer one, or will have it: then rank and position are null.",
        "applied",
        {"enum": ["applied", "superseded", "pending"]},
    ),
    "Idempotent-Replayed": Header(
        "An earlier request with this key was carried out, and this is its answer.",
        "true",
        {"const": "true"},
        always=False,
    ),
    "X-Consistency-Token": Header("Send it with a read that must not be from before this write.", "ada:10002", _TOKEN),
}
"""What an answer may carry."""

FRESHNESS = ("X-Consistency-Token", "Cache-Control")
"""What a request says of how fresh its answer is to be: headers of every read that carries a rank."""

READ_HEADERS = ("Cache-Control", "X-Rank-Source", "X-Mirror-Lag-Ms", "X-Rank-As-Of", "X-Data-Stale")
"""Headers of an answer to a read that carries ranks of this moment."""

WRITE_HEADERS = ("ETag", "X-Mirror-Write", "X-Consistency-Token")
"""Headers of an answer to a write that leaves a user."""
