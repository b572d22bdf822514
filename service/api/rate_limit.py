"""ASGI middleware for the rate limit: refuses what goes beyond it, and tells every client how it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service import metrics
from service.api.admission import has_body, linger
from service.api.asgi import UNLIMITED, add_headers, refuse
from service.api.problems import RATE_LIMITED

if TYPE_CHECKING:
    from service.api.asgi import ASGIApp, Receive, Scope, Send
    from service.api.client_address import ClientAddresses
    from service.limiter import Limiter


class RateLimit:
    """ASGI middleware: refuses what a client asks beyond its bucket, and tells every client how it stands."""

    def __init__(self, app: ASGIApp, limiter: Limiter, client: ClientAddresses) -> None:
        self._app = app
        self._limiter = limiter
        self._client = client
        self._limit = (b"ratelimit-limit", str(limiter.burst).encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it with 429."""
        if scope["type"] != "http" or scope["path"] in UNLIMITED:
            await self._app(scope, receive, send)
            return
        verdict = await self._limiter(self._client(scope))
        told = (
            self._limit,
            (b"ratelimit-remaining", str(verdict.left).encode()),
            (b"ratelimit-reset", str(self._limiter.reset(verdict.left)).encode()),
        )
        if not verdict.passes:
            metrics.RATE_LIMITED.inc()
            if has_body(scope):
                await linger(scope, receive)
            retry = (b"retry-after", str(self._limiter.retry_after()).encode())
            await refuse(send, 429, RATE_LIMITED, (*told, retry))
            return
        await self._app(scope, receive, add_headers(send, told))
