"""
How much is taken on: so many requests at once, and so much time for a body to arrive.

Beyond that a request is refused at once, which costs next to nothing: those that were admitted are answered in
time whatever comes on top, and the service is itself again as soon as the rush is over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from service import metrics
from service.api.asgi import UNLIMITED, refuse
from service.api.problems import OVERLOADED, RETRY_AFTER_SECONDS
from service.errors import TooSlow

if TYPE_CHECKING:
    from service.api.asgi import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS = 10.0
"""From the request's head to the end of its body."""
_TELL_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class Admission:
    """ASGI middleware that serves up to `most` requests at a time; `in_flight` is how many there are."""

    def __init__(self, app: ASGIApp, *, most: int, body_seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._most = most
        self._body_seconds = body_seconds
        self.in_flight = 0
        self._refused, self._told = 0, -_TELL_SECONDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it with 503 when there are too many."""
        if scope["type"] != "http" or scope["path"] in UNLIMITED:
            await self._app(scope, receive, send)
            return
        if self.in_flight >= self._most:
            self._shed(scope)
            await refuse(send, 503, OVERLOADED, [(b"retry-after", str(RETRY_AFTER_SECONDS).encode())])
            return
        self.in_flight += 1
        try:
            await self._app(scope, self._hurried(receive), send)
        finally:
            self.in_flight -= 1

    def _shed(self, scope: Scope) -> None:
        # The request's own line in the log would make the rush dearer than it is.
        scope["state"]["quiet"] = True
        self._refused += 1
        metrics.SHED.inc()
        now = asyncio.get_running_loop().time()
        if now - self._told >= _TELL_SECONDS:
            _log.error("requests.shed", requests=self._refused, in_flight=self.in_flight)
            self._told, self._refused = now, 0

    def _hurried(self, receive: Receive) -> Receive:
        deadline = asyncio.get_running_loop().time() + self._body_seconds
        is_whole = False

        async def hurried() -> Message:
            nonlocal is_whole
            # Behind the body there is only the client's leaving, which may take as long as it likes.
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise TooSlow from None
            is_whole = not message.get("more_body", False)
            return message

        return hurried
