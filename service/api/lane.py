"""
The fast lane: what is asked all day, answered without the framework.

A GET of a user, a rank, neighbours or a page by offset, a POST of a list of ids, and a PUT of a rating, that carry nothing
out of the ordinary are answered here, by the same verbs and the same views as their handlers answer them. Whatever else it
may be (a condition, a token, a parameter that is not quite right, an address that does not exist) goes the long way, through
the framework and all its checks: the lane only decides what is ordinary.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from service.api.answers import encode, raw_rank_headers
from service.api.asgi import answer, refuse
from service.api.compression import MIN_BYTES, compressed
from service.api.inputs import BROKEN_OFF, parsed
from service.api.leaderboard import page_view
from service.api.problems import refusal
from service.api.ranks import AskRanks, Neighbors, different, rank_view, ranks_view
from service.api.users import SetRating, rated_view, raw_write_headers, tag_of, user_view
from service.errors import Invalid
from service.model import RESERVED_IDS, USER_ID, UserId

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.api.access import Keys
    from service.api.asgi import ASGIApp, Headers, Receive, Scope, Send
    from service.ranking.ladder import Ladder

    Answered = tuple[bytes, Headers]

_CHANGE_READS = frozenset(
    {b"x-consistency-token", b"cache-control", b"if-none-match", b"content-length", b"transfer-encoding"}
)
_CHANGE_WRITES = frozenset({b"if-match", b"content-encoding", b"transfer-encoding", b"expect"})
_CHANGE_LISTS = (_CHANGE_READS | _CHANGE_WRITES) - {b"content-length"}
"""Headers that change what is done, or how it is answered."""
_HOST = re.compile(rb"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?\Z")
_RADIUS = re.compile(rb"radius=([1-9][0-9]?|100)\Z")
_PAGE = re.compile(rb"limit=([1-9][0-9]{0,2}|1000)(?:&offset=(0|[1-9][0-9]{0,14}))?\Z")
_SMALL_BODY = re.compile(rb"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4})\Z")


class Lane:
    """ASGI middleware just before the framework; `ladder` is there once the service is open."""

    def __init__(self, app: ASGIApp, ladder: Callable[[], Ladder], keys: Keys) -> None:
        self._app = app
        self._ladder = ladder
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is ordinary, and pass on everything else."""
        answered = None
        if scope["type"] == "http":
            try:
                if scope["method"] == "GET":
                    answered = await self._read(scope)
                elif scope["method"] == "PUT":
                    answered = await self._write(scope, receive)
                elif scope["method"] == "POST" and scope["path"] == "/ranks":
                    answered = await self._list(scope, receive)
            except Exception as error:  # noqa: BLE001  as the framework's handlers do, inside what tells of limits
                status, document, headers = refusal(error, scope)
                # It quotes what it refuses, as the name of a field, which may be long.
                if len(document) > MIN_BYTES:
                    document, coded = compressed(document, scope["headers"])
                    headers = [*headers, *coded]
                await refuse(send, status, document, headers)
                return
        if answered is None:
            await self._app(scope, receive, send)
        else:
            await answer(send, *answered)

    async def _read(self, scope: Scope) -> Answered | None:
        if _ordinary(scope["headers"], _CHANGE_READS) is None:
            return None
        path, query = scope["path"], scope["query_string"]
        if path == "/leaderboard":
            return await self._page(scope, query)
        user_id, what = _user(path)
        if user_id is None:
            return None
        if not query:
            return await self._user(scope, user_id, what)
        if what == "/neighbors" and (radius := _RADIUS.match(query)):
            scope["path_template"] = "/users/{user_id}/neighbors"
            around = await self._ladder().standings.neighbors(user_id, radius=int(radius[1]))
            return _long(scope, encode(Neighbors(around.value.rows)), raw_rank_headers(around))
        return None

    async def _page(self, scope: Scope, query: bytes) -> Answered | None:
        if not (asked := _PAGE.match(query)):
            return None
        scope["path_template"] = "/leaderboard"
        page, following = await self._ladder().page(limit=int(asked[1]), offset=int(asked[2] or 0))
        return _long(scope, encode(page_view(page.value, following)), raw_rank_headers(page))

    async def _user(self, scope: Scope, user_id: UserId, what: str) -> Answered | None:
        if what == "/rank":
            scope["path_template"] = "/users/{user_id}/rank"
            ranked = await self._ladder().standings.rank(user_id)
            return encode(rank_view(ranked.value)), raw_rank_headers(ranked)
        if what:
            return None
        scope["path_template"] = "/users/{user_id}"
        seen = await self._ladder().user(user_id)
        view = user_view(seen.value.user, seen.value.standing)
        return encode(view), [(b"etag", b'"%s"' % tag_of(view).encode()), *raw_rank_headers(seen)]

    async def _write(self, scope: Scope, receive: Receive) -> Answered | None:
        user_id, what = _user(scope["path"])
        headers = _ordinary(scope["headers"], _CHANGE_WRITES)
        if user_id is None or what != "/rating" or headers is None or not _has_body(scope, headers):
            return None
        scope["path_template"] = "/users/{user_id}/rating"
        self._keys.check(headers.get(b"authorization", b"").decode("latin-1"))
        asked = parsed(await _body(receive), SetRating)
        written = await self._ladder().rate(user_id, asked.rating)
        return encode(rated_view(written)), raw_write_headers(written)

    async def _list(self, scope: Scope, receive: Receive) -> Answered | None:
        headers = _ordinary(scope["headers"], _CHANGE_LISTS)
        if headers is None or not _has_body(scope, headers):
            return None
        scope["path_template"] = "/ranks"
        ids = different(parsed(await _body(receive), AskRanks))
        listed = await self._ladder().standings.rows(ids)
        return _long(scope, encode(ranks_view(ids, listed.value)), raw_rank_headers(listed))


def _long(scope: Scope, body: bytes, headers: Headers) -> Answered:
    """Return an answer that may be long, compressed if it is and may be."""
    body, coded = compressed(body, scope["headers"])
    return body, [*headers, *coded]


def _has_body(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Whether it carries JSON of which nobody needs to ask how long it may be, and no query."""
    return (
        not scope["query_string"]
        and headers.get(b"content-type") == b"application/json"
        and _SMALL_BODY.match(headers.get(b"content-length", b"")) is not None
    )


def _user(path: str) -> tuple[UserId | None, str]:
    """Return the user that an address names, None if there is none, and what follows the name."""
    if not path.startswith("/users/"):
        return None, ""
    name, slash, rest = path[7:].partition("/")
    return (UserId(name) if USER_ID.match(name) and name not in RESERVED_IDS else None), slash + rest


def _ordinary(headers: Headers, special: frozenset[bytes]) -> dict[bytes, bytes] | None:
    """Return the headers; None if there is a special one, one comes twice, or the host is no plain name."""
    found = dict(headers)
    if len(found) < len(headers) or not special.isdisjoint(found) or not _HOST.match(found.get(b"host", b"localhost")):
        return None
    return found


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Invalid(BROKEN_OFF)
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
