"""
What wraps every request: its id, HEAD as GET without a body, headers that browsers are told by, and a log line
where one is worth it.
"""

from __future__ import annotations

import re
import time
from secrets import token_hex
from typing import TYPE_CHECKING

import structlog

from service import metrics
from service.api import problems
from service.api.asgi import refuse

if TYPE_CHECKING:
    from service.api.asgi import ASGIApp, Headers, Message, Receive, Scope, Send

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
        # Bound once: an unbound logger is built anew for every line, also for one that is not written.
        self._log = _log.bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; other scopes pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        # A dict of this request's own: a server may hand out the same one for a whole connection.
        scope["state"] = {**scope.get("state", {}), "request_id": request_id.decode()}
        method, path, begun = scope["method"], scope["path"], time.perf_counter()
        status = 0
        metrics.IN_FLIGHT.inc()

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                metrics.answered(scope.get("path_template"), method, status, time.perf_counter() - begun)
                message["headers"] = [*_told(status, message["headers"]), (b"x-request-id", request_id)]
                message["headers"] += _missing(message["headers"])
            elif method == "HEAD" and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        try:
            await self._answer(scope, receive, tagged)
        except Exception:  # noqa: BLE001  it has passed the framework's own handlers: the last chance to answer
            self._log.exception("request.failed", request_id=request_id.decode(), path=path)
            if not status:
                await refuse(tagged, 500, problems.internal(request_id.decode()))
        finally:
            seconds = time.perf_counter() - begun
            metrics.IN_FLIGHT.dec()
            if not status:
                metrics.answered(scope.get("path_template"), method, status, seconds)
            quiet = scope["state"].get("quiet", False)
            write = (
                self._log.debug
                if quiet
                else self._log.error
                if status >= 500
                else self._log.warning
                if seconds > SLOW_SECONDS
                else self._log.debug
            )
            write(
                "request",
                request_id=request_id.decode(),
                method=method,
                path=path,
                status=status,
                ms=round(seconds * 1000, 1),
                **({"reason": scope["state"]["reason"]} if "reason" in scope["state"] else {}),
            )

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _misspelt(scope):
            scope["path"] = _NOWHERE
        if scope["method"] == "HEAD":
            scope["method"] = "GET"
            scope["state"]["is_head"] = True
        await self._app(scope, receive, send)


def _told(status: int, headers: Headers) -> Headers:
    # Whoever answers GET answers HEAD.
    if status not in (204, 405):
        return headers
    return [
        (name, value.replace(b"GET", b"GET, HEAD") if name.lower() == b"allow" else value) for name, value in headers
    ]


# An answer is data: no page, so nothing in it may be loaded, framed or guessed to be something else; and it is
# true now, so nobody may keep it without asking again. A page says otherwise itself.
_DEFAULTS = {
    b"cache-control": b"no-cache",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}


def _missing(headers: Headers) -> Headers:
    given = {name for name, _ in headers}
    return [header for header in _DEFAULTS.items() if header[0] not in given]


def _misspelt(scope: Scope) -> bool:
    # The router drops such slashes: it would find the user "ada" for the id "/ada", written "%2Fada". And it takes
    # an authority, which only CONNECT may name and which has no path, for the homepage.
    path = scope["path"]
    return (
        not path.startswith("/")
        or "//" in path
        or (path.endswith("/") and path not in ("/", "/docs/"))
        or b"%2f" in scope.get("raw_path", b"").lower()
    )


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE.match(value):
            return bytes(value)
    return token_hex(16).encode()
