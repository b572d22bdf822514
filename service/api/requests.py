"""What wraps every request: its id, HEAD as GET without a body, and a log line where one is worth it."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

Mapping = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping]]
Send = Callable[[Mapping], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application, loosely: the specification's own words are dicts."""

SLOW_SECONDS = 0.5
_NOWHERE = "/\0"
_SANE = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")

_log = structlog.get_logger(__name__)


class Requests:
    """
    ASGI middleware around the whole application, so that refusals of the framework pass it too.

    A request is logged at debug; at warning when it was slow; at error when it was answered 5xx.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Mapping, receive: Receive, send: Send) -> None:
        """Serve one request; other scopes pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        # A dict of this request's own: a server may hand out the same one for a whole connection.
        scope["state"] = {**scope.get("state", {}), "request_id": request_id.decode()}
        if _misspelt(scope):
            scope["path"] = _NOWHERE
        headless = scope["method"] == "HEAD"
        if headless:
            scope["method"] = "GET"
        status, begun = 500, time.perf_counter()

        async def tagged(message: Mapping) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            elif headless and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        try:
            await self._app(scope, receive, tagged)
        finally:
            seconds = time.perf_counter() - begun
            write = _log.error if status >= 500 else _log.warning if seconds > SLOW_SECONDS else _log.debug
            write(
                "request",
                request_id=request_id.decode(),
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=round(seconds * 1000, 1),
            )


def _misspelt(scope: Mapping) -> bool:
    # The router drops such slashes: it would find the user "ada" for the id "/ada", written "%2Fada".
    path = scope["path"]
    return "//" in path or (path.endswith("/") and path != "/") or b"%2f" in scope.get("raw_path", b"").lower()


def _request_id(scope: Mapping) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE.match(value):
            return bytes(value)
    return uuid.uuid4().hex.encode()
