"""
The fast lane: what is asked all day, answered without the framework.

A GET of a user, a rank, neighbours or a page by offset that carries nothing out of the ordinary is answered here, by
the same verbs and the same views as its handler answers it. Whatever else it may be (a condition, a token, a parameter
that is not quite right, an address that does not exist) goes the long way, through the framework and all its checks: the
lane only decides what is ordinary.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from service.api.answers import encode, told
from service.api.asgi import answer, refuse
from service.api.leaderboard import page_view
from service.api.problems import documented
from service.api.ranks import Neighbors, rank_view
from service.api.users import tag_of, user_view
from service.errors import LadderError
from service.model import RESERVED_IDS, USER_ID, UserId

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.api.asgi import ASGIApp, Headers, Receive, Scope, Send
    from service.ranking.ladder import Ladder

_SPECIAL = frozenset({b"x-consistency-token", b"cache-control", b"if-none-match", b"content-length"})
"""Headers that change what is read, or how it is answered."""
_HOST = re.compile(rb"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?\Z")
_RADIUS = re.compile(rb"radius=([1-9][0-9]?|100)\Z")
_PAGE = re.compile(rb"limit=([1-9][0-9]{0,2}|1000)(?:&offset=(0|[1-9][0-9]{0,14}))?\Z")


class Lane:
    """ASGI middleware just before the framework; `ladder` is there once the service is open."""

    def __init__(self, app: ASGIApp, ladder: Callable[[], Ladder]) -> None:
        self._app = app
        self._ladder = ladder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is ordinary, and pass on everything else."""
        if scope["type"] != "http" or scope["method"] != "GET" or not _is_ordinary(scope["headers"]):
            await self._app(scope, receive, send)
            return
        try:
            found = await self._found(scope)
        except LadderError as error:
            if (problem := documented(error)) is None:
                raise
            await refuse(send, *problem)
            return
        if found is None:
            await self._app(scope, receive, send)
            return
        await answer(send, *found)

    async def _found(self, scope: Scope) -> tuple[bytes, Headers] | None:
        path, query = scope["path"], scope["query_string"]
        if path == "/leaderboard":
            if not (page := _PAGE.match(query)):
                return None
            scope["path_template"] = path
            read, following = await self._ladder().page(limit=int(page[1]), offset=int(page[2] or 0))
            return encode(page_view(read.value, following)), told(read)
        if not path.startswith("/users/"):
            return None
        name, _, what = path[7:].partition("/")
        if name in RESERVED_IDS or not USER_ID.match(name):
            return None
        return await self._of_user(scope, UserId(name), what, query)

    async def _of_user(self, scope: Scope, user_id: UserId, what: str, query: bytes) -> tuple[bytes, Headers] | None:
        if what == "rank" and not query:
            scope["path_template"] = "/users/{user_id}/rank"
            ranked = await self._ladder().standings.rank(user_id)
            return encode(rank_view(ranked.value)), told(ranked)
        if what == "neighbors" and (radius := _RADIUS.match(query)):
            scope["path_template"] = "/users/{user_id}/neighbors"
            around = await self._ladder().standings.neighbors(user_id, radius=int(radius[1]))
            return encode(Neighbors(around.value.rows)), told(around)
        if what == "" and not query and scope["path"][-1] != "/":
            scope["path_template"] = "/users/{user_id}"
            seen = await self._ladder().user(user_id)
            view = user_view(seen.value.user, seen.value.standing)
            return encode(view), [(b"etag", f'"{tag_of(view)}"'.encode()), *told(seen)]
        return None


def _is_ordinary(headers: Headers) -> bool:
    is_host = False
    for name, value in headers:
        if name in _SPECIAL:
            return False
        if name == b"host":
            if is_host or not _HOST.match(value):
                return False
            is_host = True
    return True
