"""What wraps every request: its id, HEAD as GET without a body, and a log line where one is worth it."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from service.api import problems

Mapping = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping]]
Send = Callable[[Mapping], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application, loosely: the specification's own words are dicts."""

SLOW_SECONDS = 0.5
MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers together; the server itself gives up on a little more than that."""
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
        method, path, begun = scope["method"], scope["path"], time.perf_counter()
        status = 0

        async def tagged(message: Mapping) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*_told(status, message["headers"]), (b"x-request-id", request_id)]
            elif method == "HEAD" and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        try:
            await self._answer(scope, receive, tagged)
        except Exception:  # noqa: BLE001  it has passed the framework's own handlers: the last chance to answer
            _log.exception("request.failed", request_id=request_id.decode(), path=path)
            if not status:
                await _refuse(tagged, 500, problems.internal(request_id.decode()))
        finally:
            seconds = time.perf_counter() - begun
            write = _log.error if status >= 500 else _log.warning if seconds > SLOW_SECONDS else _log.debug
            write(
                "request",
                request_id=request_id.decode(),
                method=method,
                path=path,
                status=status,
                ms=round(seconds * 1000, 1),
            )

    async def _answer(self, scope: Mapping, receive: Receive, send: Send) -> None:
        if _head_bytes(scope) > MAX_HEAD_BYTES:
            await _refuse(send, 431, problems.TOO_LARGE_HEAD)
            return
        if _misspelt(scope):
            scope["path"] = _NOWHERE
        if scope["method"] == "HEAD":
            scope["method"] = "GET"
        await self._app(scope, receive, send)


async def _refuse(send: Send, status: int, document: bytes) -> None:
    headers = [(b"content-type", problems.MEDIA_TYPE.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": document})


def _told(status: int, headers: Headers) -> Headers:
    # Whoever answers GET answers HEAD.
    if status not in (204, 405):
        return headers
    return [
        (name, value.replace(b"GET", b"GET, HEAD") if name.lower() == b"allow" else value) for name, value in headers
    ]


def _head_bytes(scope: Mapping) -> int:
    lines = sum(len(name) + len(value) for name, value in scope["headers"])
    return lines + len(scope.get("raw_path", b"")) + len(scope["query_string"])


def _misspelt(scope: Mapping) -> bool:
    # The router drops such slashes: it would find the user "ada" for the id "/ada", written "%2Fada".
    path = scope["path"]
    return "//" in path or (path.endswith("/") and path != "/") or b"%2f" in scope.get("raw_path", b"").lower()


def _request_id(scope: Mapping) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE.match(value):
            return bytes(value)
    return uuid.uuid4().hex.encode()
