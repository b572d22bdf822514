"""Who may do what: keys for writes, and the origins whose pages may ask."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from service.api.asgi import varying
from service.errors import Unauthorized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.api.asgi import ASGIApp, Headers, Message, Receive, Scope, Send

_PREFLIGHT_SECONDS = 600
_ALLOWED_HEADERS = (
    b"authorization, cache-control, content-type, idempotency-key, if-match, if-none-match, last-event-id,"
    b" x-consistency-token, x-request-id"
)
_EXPOSED_HEADERS = (
    b"etag, idempotent-replayed, location, retry-after, ratelimit-limit, ratelimit-remaining, ratelimit-reset,"
    b" x-consistency-token, x-data-stale, x-mirror-lag-ms, x-mirror-write, x-rank-as-of, x-rank-source, x-request-id"
)


class Keys:
    """
    The keys that may write, by their SHA-256; without any everybody may.

    Every digest is compared, and in constant time, so that an answer's delay tells nothing.
    """

    def __init__(self, digests: Sequence[bytes]) -> None:
        self._digests = tuple(digests)

    def check(self, authorization: str) -> None:
        """Return if a header of this value may write; raises `Unauthorized`."""
        if not self._digests:
            return
        scheme, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode("latin-1", "replace")).digest()
        known = [hmac.compare_digest(digest, held) for held in self._digests]
        if scheme.lower() != "bearer" or not any(known):
            raise Unauthorized


class Cors:
    """
    ASGI middleware: pages of exactly these origins may read the answers, without credentials.

    Outside everything that can refuse a request, so that such a page can read the refusal too. A preflight is
    answered by `Preflights`, further inside.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not self._origins:
            await self._app(scope, receive, send)
            return
        asked = {name: value for name, value in scope["headers"] if name in _ASKED}
        told: Headers = []
        origin = asked.get(b"origin")
        if origin in self._origins:
            told.append((b"access-control-allow-origin", origin))
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in asked:
                told += [
                    (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
                    (b"access-control-allow-headers", _ALLOWED_HEADERS),
                    (b"access-control-max-age", str(_PREFLIGHT_SECONDS).encode()),
                ]
                scope["state"]["preflight"] = True
            else:
                told.append((b"access-control-expose-headers", _EXPOSED_HEADERS))

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*varying(message["headers"], b"Origin"), *told]
            await send(message)

        await self._app(scope, receive, telling)


class Preflights:
    """ASGI middleware: answers what `Cors` found to be a preflight. Inside the rate limit: it is a request as any other."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["state"].get("preflight"):
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._app(scope, receive, send)


_ASKED = (b"origin", b"access-control-request-method")
