"""What a request may say: strict reading of queries, bodies, ids and preconditions. Nothing is coerced."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote_plus

import msgspec
from litestar.exceptions import HTTPException, InternalServerException
from litestar.handlers import HTTPRouteHandler

from service.api.asgi import UNLIMITED
from service.api.readers import IN_PATH
from service.api.repeated_members import repeated_member
from service.errors import Invalid, UnsupportedMediaType
from service.model import RESERVED_IDS, USER_ID, Token, UserId, Version
from service.ranking.answers import Demand

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from litestar import Request
    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler

    from service.api.readers import Reader

B = TypeVar("B")

_MAX_PARAMETERS = 20
_OWS = " \t"
"""White space around a header's value and its parts (RFC 9110 section 5.6.3); `str.strip` would take more for it."""
_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_NAMED = re.compile(r"(?:required|unknown) field `([^`]*)`")


def check_length(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Refuse a body that is announced as too large, also where nobody would read it."""
    announced = connection.headers.get("content-length", "")
    limit = handler.resolve_request_max_body_size() if isinstance(handler, HTTPRouteHandler) else None
    if limit is not None and announced.isdecimal() and int(announced) > limit:
        raise HTTPException(status_code=413)


async def check_chunks(request: Request[Any, Any, Any]) -> None:
    """
    Refuse a body in chunks that turns out to be too large, also where nobody else would read it.

    Not where no limit applies to how long it may take.
    """
    unread = request.method in ("GET", "DELETE") and request.scope["path"] not in UNLIMITED
    if unread and "transfer-encoding" in request.headers:
        await _raw(request)


def check_query(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """
    Read the query by the readers that the handler declares in `opt["query"]`, into the request's state.

    Asked of every route, so that an undeclared parameter is refused everywhere, except by handlers with
    `opt["any_query"]`: pages for people, whose shared links carry other sites' parameters, and health probes. Raises
    `Invalid` with every problem at once.
    """
    if handler.opt.get("any_query"):
        return
    readers: Mapping[str, Reader] = handler.opt.get("query", {})
    values: dict[str, object] = {}
    problems: list[tuple[str, str]] = []
    for name, text in _pairs(connection.scope["query_string"]):
        if name not in readers:
            problems.append((name, "is not a parameter of this address"))
        elif name in values:
            problems.append((name, "is given more than once"))
        else:
            values[name] = None
            try:
                values[name] = readers[name](text)
            except ValueError as error:
                problems.append((name, str(error)))
    for name in [name for name in readers if name not in values]:
        if readers[name].required:
            problems.append((name, "is required"))
        elif readers[name].default is not msgspec.UNSET:
            values[name] = readers[name].default
    if problems:
        raise Invalid(*problems)
    connection.scope["state"]["query"] = values


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    if raw.count(b"&") >= _MAX_PARAMETERS:
        raise Invalid(("query", f"has more than {_MAX_PARAMETERS} parameters"))
    return [_pair(part) for part in raw.split(b"&") if part]


def _pair(part: bytes) -> tuple[str, str]:
    raw_name, _, raw_value = part.partition(b"=")
    name = _unquoted(raw_name, "query")
    return name, _unquoted(raw_value, name or "query")


def _unquoted(raw: bytes, field: str) -> str:
    """Return the decoded text of a part of a query; raises `Invalid` about `field` if it cannot be decoded."""
    # The standard library would keep the sign as it is.
    if _BROKEN_ESCAPE.search(raw):
        raise Invalid((field, "holds a percent sign without two hexadecimal digits after it"))
    try:
        return unquote_plus(raw.decode("ascii"), errors="strict")
    except ValueError:
        raise Invalid((field, "is not well-formed UTF-8 in percent-encoding")) from None


def query(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Return the values that `check_query` read."""
    values: dict[str, Any] = request.scope["state"]["query"]
    return values


def _in_path(request: Request[Any, Any, Any], key: str) -> Any:
    name, reader = IN_PATH[key]
    try:
        return reader(request.path_params[key])
    except ValueError as error:
        raise Invalid((name, str(error))) from None


def user_id(request: Request[Any, Any, Any]) -> UserId:
    """Return the id in the path; raises `Invalid` for one that no user can have."""
    found: UserId = _in_path(request, "user_id")
    return found


def rating(request: Request[Any, Any, Any]) -> int:
    """Return the rating in the path; raises `Invalid` for one that no user can have."""
    found: int = _in_path(request, "rating")
    return found


async def body(request: Request[Any, Any, Any], kind: type[B]) -> B:
    """
    Return the body as `kind`.

    Raises `UnsupportedMediaType` unless it is declared as JSON in UTF-8, in no content coding, and `Invalid` for anything that
    is not exactly `kind`: malformed JSON, other types, unknown or missing fields.
    """
    # All lines of each: whoever sends two means to be read in two ways.
    declared, _, parameters = (header_list(request, "content-type") or "").lower().partition(";")
    charset = parameters.strip(_OWS).removeprefix("charset=").strip('"')
    coding = (header_list(request, "content-encoding") or "identity").lower()
    if declared.strip(_OWS) != "application/json" or charset not in ("", "utf-8", "utf8") or coding != "identity":
        raise UnsupportedMediaType
    return parsed(await _raw(request), kind)


BROKEN_OFF = ("body", "ended too early")


async def _raw(request: Request[Any, Any, Any]) -> bytes:
    try:
        return await request.body()
    except InternalServerException:
        # The client went away, or broke off its chunks: the server ended the body with a disconnection.
        raise Invalid(BROKEN_OFF) from None


def parsed(raw: bytes, kind: type[B]) -> B:
    """Return JSON as `kind`; raises `Invalid` for anything that is not exactly that. O(length)."""
    try:
        found = msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise Invalid(_problem(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid(("body", "is not well-formed JSON in UTF-8")) from None
    # The decoder takes the last of two members of one name. A colon stands in each, so one colon is one member; the
    # names are compared as they are meant, because escapes can spell one name in many ways.
    if raw.count(b":") > 1 and (repeated := repeated_member(raw)):
        raise Invalid((repeated, "is given more than once"))
    return found


def _problem(message: str) -> tuple[str, str]:
    where = _AT.search(message)
    named = _NAMED.search(message)
    text = _AT.sub("", message).replace("`", "")
    field = ".".join(found[1] for found in (where, named) if found and found[1]) or "body"
    # It quotes a pattern as Python does, whose word for the end of a text is none of a client's.
    return field, text[0].lower() + text[1:].replace("\\\\", "\\").replace("\\Z", "$")


def refuse_repeated(ids: Sequence[UserId], *, at: str) -> None:
    """Raise `Invalid` if an id comes twice; `at` is how a place in the list is called, with braces for its number."""
    seen: set[UserId] = set()
    for number, each in enumerate(ids):
        if each in seen:
            raise Invalid((at.format(number), "is given more than once"))
        seen.add(each)


def not_reserved(text: str) -> UserId:
    """Return the id; raises `Invalid` for one that a route of the same name would hide."""
    if text in RESERVED_IDS:
        raise Invalid(("id", "is reserved"))
    return UserId(text)


def header_list(request: Request[Any, Any, Any], name: str) -> str | None:
    """Return a header whose value is a list; several lines of it are one list (RFC 9110 section 5.3)."""
    lines = request.headers.getall(name, [])
    return ", ".join(lines).strip(_OWS) if lines else None


TOKEN_HEADER = "X-Consistency-Token"  # noqa: S105  a name
_TOKEN = re.compile(r"(.+):([1-9][0-9]{0,14})\Z")


def token(text: str) -> Token:
    """Return the token that the text is; raises `Invalid` for any other text. An id may contain colons."""
    found = _TOKEN.match(text)
    if not found or not USER_ID.match(found[1]) or found[1] in RESERVED_IDS:
        raise Invalid((TOKEN_HEADER, "is not a token of a write's answer"))
    return Token(UserId(found[1]), Version(int(found[2])))


def demand(request: Request[Any, Any, Any]) -> Demand:
    """Return how fresh the request wants its answer to be; raises `Invalid` for a malformed or a second token."""
    held = header_list(request, TOKEN_HEADER)
    directives = {text.strip().lower() for text in (header_list(request, "cache-control") or "").split(",")}
    # Two tokens are refused: to honour one of them would break the promise of the other.
    return Demand(None if held is None else token(held), no_cache="no-cache" in directives)
