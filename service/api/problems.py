"""RFC 9457 problem documents: the one table from domain errors, and the framework's, to HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from service.errors import (
    IdTaken,
    Invalid,
    KeyReused,
    LadderError,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    RatingOutOfRange,
    TooSlow,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    UsernameTaken,
    explain,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from typing import Any

    from service.api.asgi import Headers, Scope

RETRY_AFTER_SECONDS = 1
MEDIA_TYPE = "application/problem+json"

_BY_ERROR: dict[type[LadderError], tuple[int, str, str]] = {
    Unauthorized: (401, "unauthorized", "A key is needed"),
    TooSlow: (408, "too-slow", "The request took too long"),
    Invalid: (400, "validation", "The request is not valid"),
    NotFound: (404, "not-found", "Not found"),
    UsernameTaken: (409, "username-taken", "The username is taken"),
    IdTaken: (409, "id-taken", "The id is taken"),
    RatingOutOfRange: (409, "rating-out-of-range", "The rating would be out of range"),
    KeyReused: (422, "idempotency-mismatch", "The key belongs to another request"),
    UnsupportedMediaType: (415, "unsupported-media-type", "Unsupported media type"),
    PreconditionFailed: (412, "precondition-failed", "The precondition failed"),
    Unavailable: (503, "unavailable", "Temporarily unavailable"),
    OutcomeUnknown: (503, "outcome-unknown", "It is unknown whether the write was carried out"),
}
_BY_STATUS: dict[int, tuple[str, str]] = {
    400: ("validation", "The request is not valid"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "Method not allowed"),
    413: ("too-large", "The request is too large"),
    415: ("unsupported-media-type", "Unsupported media type"),
}
_DETAIL = {
    404: "There is nothing at this address.",
    405: "This address does not understand that method; see the Allow header.",
    413: "The request body is larger than this address accepts.",
}
_HEADERS: dict[int, Headers] = {
    401: [(b"www-authenticate", b"Bearer")],
    # The rest of the body would still be on its way.
    408: [(b"connection", b"close")],
    503: [(b"retry-after", str(RETRY_AFTER_SECONDS).encode())],
}
_INTERNAL = (500, "internal", "Internal error")

_log = structlog.get_logger(__name__)


class FieldProblem(msgspec.Struct, frozen=True):
    """What is wrong with one field of the body or one parameter."""

    field: str
    message: str


class Problem(msgspec.Struct, frozen=True):
    """The document; `type` is relative to this service and stable per kind."""

    type: str
    title: str
    status: int
    detail: str
    errors: Sequence[FieldProblem]


def _problem(status: int, slug: str, title: str, detail: str, errors: Sequence[tuple[str, str]] = ()) -> Problem:
    return Problem(f"/problems/{slug}", title, status, detail, [FieldProblem(*error) for error in errors])


def _document(status: int, slug: str, title: str, detail: str, errors: Sequence[tuple[str, str]] = ()) -> bytes:
    return msgspec.json.encode(_problem(status, slug, title, detail, errors))


def _defect(request_id: str) -> Problem:
    return _problem(*_INTERNAL, f"The error was logged as request {request_id}; name that id to report it.")


def internal(request_id: str) -> bytes:
    """Return the document of a defect: nothing but the id that the log knows it by."""
    return msgspec.json.encode(_defect(request_id))


_RATE_LIMITED = _problem(
    429, "rate-limited", "Too many requests", "This client asks faster than is allowed; see the RateLimit headers."
)
RATE_LIMITED = msgspec.json.encode(_RATE_LIMITED)
OVERLOADED_DETAIL = "Too many requests are being served; nothing was changed."
OVERLOADED = _document(503, "unavailable", "Temporarily unavailable", OVERLOADED_DETAIL)
_TOO_LARGE_HEAD = _problem(431, "too-large", "The request is too large", "Its address and headers exceed 64 KiB.")
TOO_LARGE_HEAD = msgspec.json.encode(_TOO_LARGE_HEAD)
_HOST = ("Host", "must name one host, and a port up to 65535 if any")
INVALID_HOST = _document(400, "validation", "The request is not valid", ": ".join(_HOST), [_HOST])


def _response(document: bytes, status: int, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    return Response(document, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def from_ladder_error(request: Request[Any, Any, Any], error: LadderError) -> Response[bytes]:
    """Answer one of our own errors."""
    status, document, headers = refusal(error, cast("Scope", request.scope))
    return _response(document, status, {name.decode(): value.decode() for name, value in headers})


def refusal(error: Exception, scope: Scope) -> tuple[int, bytes, Headers]:
    """
    Return status, document and headers for whatever was raised: what is not in the table is a defect, and logged.

    The request's state keeps the reason of another 5xx, for the log.
    """
    state = scope.get("state", {})
    for kind in type(error).__mro__:
        if kind in _BY_ERROR:
            status, slug, title = _BY_ERROR[kind]
            fields = error.problems if isinstance(error, Invalid) else ()
            if status >= 500:
                state["reason"] = explain(error)
            return status, _document(status, slug, title, str(error), fields), _HEADERS.get(status, [])
    # The log has everything, the client the request id to ask with.
    request_id = state.get("request_id", "")
    _log.error("request.failed", request_id=request_id, path=scope["path"], exc_info=error)
    return 500, internal(request_id), []


def from_framework(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Answer what the framework refused: routes, methods, sizes."""
    status = error.status_code
    if status >= 500:
        return from_defect(request, error)
    slug, title = _BY_STATUS.get(status, _BY_STATUS[400])
    allow = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
    return _response(_document(status, slug, title, _DETAIL.get(status, title + ".")), status, allow)


def from_defect(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer a defect of ours."""
    status, document, _ = refusal(error, cast("Scope", request.scope))
    return _response(document, status)


HANDLERS: MutableMapping[int | type[Exception], Any] = {
    LadderError: from_ladder_error,
    HTTPException: from_framework,
    Exception: from_defect,
}


def _kinds() -> dict[str, Problem]:
    wrong = ("page", "is not a parameter of this address")
    found = {
        slug: _problem(status, slug, title, _DETAIL.get(status, title + "."))
        for status, (slug, title) in _BY_STATUS.items()
    }
    for kind, (status, slug, title) in _BY_ERROR.items():
        error = Invalid(wrong) if kind is Invalid else kind()
        found[slug] = _problem(status, slug, title, str(error), [wrong] if kind is Invalid else ())
    found["rate-limited"] = _RATE_LIMITED
    found["too-large-head"] = _TOO_LARGE_HEAD
    found["internal"] = _defect("3f2a8c52b3d04e0f9a5d1f0f4f2f7c11")
    return found


KINDS = _kinds()
"""An example of every kind of problem, by its slug; `too-large` is of two statuses, so one goes by another name."""
