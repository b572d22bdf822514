"""
Answers over 1 KiB in gzip, for clients that accept it, so that no proxy has to compress.

An answer with an ETag is left as it is, because a strong tag names bytes: one that names a version is below 1 KiB anyway,
and `asset.py` keeps files in both codings with a tag for each. docs/decisions/0020-compression.md has the figures.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING

try:
    from isal import isal_zlib as fast_zlib
except ImportError:
    # There is no wheel for this processor: zlib does the same at up to six times the cost.
    import zlib as fast_zlib  # type: ignore[no-redef]  # it has the one function that is used

from service.api.asgi import varying

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.api.asgi import ASGIApp, Header, Headers, Message, Receive, Scope, Send

MIN_BYTES = 1024
"""Answers up to this length are sent as they are."""
VARY: Header = (b"vary", b"Accept-Encoding")
ENCODING: Header = (b"content-encoding", b"gzip")
_FAST_LEVEL, _BEST_LEVEL = 1, 9
_GZIP = 31
"""What zlib calls a window of 32 KiB in the format of gzip."""
_LONGEST_HEADER = 256
_WEIGHT = re.compile(rb"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\Z", re.IGNORECASE)


def gzipped(body: bytes) -> bytes:
    """Return the body in gzip; the same for the same body. O(length), some 1 ns a byte, and 7 us at least."""
    return fast_zlib.compress(body, _FAST_LEVEL, wbits=_GZIP)


def gzipped_once(content: bytes) -> bytes:
    """Return the content in gzip, as small as it gets: for what is compressed once and sent often. O(length)."""
    return zlib.compress(content, _BEST_LEVEL, wbits=_GZIP)


def accepts_gzip(headers: Iterable[Header]) -> bool:
    """Whether Accept-Encoding gives gzip at least the weight of an uncompressed answer. O(headers)."""
    lines = [value for name, value in headers if name == b"accept-encoding"]
    # A list in several lines is one list.
    return bool(lines) and _prefers_gzip(b",".join(lines)[: _LONGEST_HEADER + 1])


@lru_cache(256)
def _prefers_gzip(header: bytes) -> bool:
    # No client sends a header this long; it would only fill the cache.
    if len(header) > _LONGEST_HEADER:
        return False
    weights: dict[bytes, float] = {}
    for element in header.lower().split(b","):
        coding, *parameters = (part.strip(b" \t") for part in element.split(b";"))
        weights[coding] = _weight(parameters)
    # A star stands for each coding that is not named, `identity` included (RFC 9110 section 12.5.3).
    anything = weights.get(b"*", 0.0)
    gzip = max(weights.get(b"gzip", 0.0), weights.get(b"x-gzip", 0.0))
    if b"gzip" not in weights and b"x-gzip" not in weights:
        gzip = anything
    # Without a weight for it or a star, `identity` is acceptable, but any accepted coding is preferred to it.
    return gzip > 0 and gzip >= weights.get(b"identity", anything)


def _weight(parameters: list[bytes]) -> float:
    if not parameters:
        return 1.0
    found = _WEIGHT.match(parameters[0]) if len(parameters) == 1 else None
    # A malformed weight: the client is sent what every client can read.
    return float(found[1]) if found else 0.0


def compressed(body: bytes, asked: Headers) -> tuple[bytes, Headers]:
    """Return a body that may be long, and the headers that say how it is coded, for a request with these headers."""
    if len(body) > MIN_BYTES and accepts_gzip(asked):
        return gzipped(body), [VARY, ENCODING]
    return body, [VARY]


class Compression:
    """
    ASGI middleware around the framework: compresses an answer that is over 1 KiB and comes in one piece.

    Those answers get `Vary`. So do shorter ones of routes with `opt["long"]`, whose next answer may be compressed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held: Message | None = None

        async def compressing(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start":
                headers = dict(message["headers"])
                is_long = int(headers.get(b"content-length", 0)) > MIN_BYTES
                if is_long or (message["status"] < 400 and _may_be_long(scope)):
                    message["headers"] = varying(message["headers"], VARY[1])
                    if is_long and b"etag" not in headers and accepts_gzip(scope["headers"]):
                        held = message
                        return
            elif held is not None:
                start, held = held, None
                # A body in pieces is sent as it is: its compressed length is not known yet.
                if not message.get("more_body", False):
                    message["body"] = gzipped(message["body"])
                    length = (b"content-length", b"%d" % len(message["body"]))
                    start["headers"] = [*(each for each in start["headers"] if each[0] != length[0]), length, ENCODING]
                await send(start)
            await send(message)

        await self._app(scope, receive, compressing)


def _may_be_long(scope: Scope) -> bool:
    handler = scope.get("route_handler")
    return handler is not None and "long" in handler.opt
