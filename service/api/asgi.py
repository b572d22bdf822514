"""ASGI in a few words: its types, loosely (the specification's own words are dicts), and what middlewares share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from service.api.problems import MEDIA_TYPE

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]
Headers = list[Header]
UNLIMITED = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})
"""Paths that no limit applies to: whoever watches the service must be able to when it is busiest."""
_JSON = (b"content-type", b"application/json")
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


async def refuse(send: Send, status: int, document: bytes, headers: Sequence[Header] = ()) -> None:
    """Answer with a problem document."""
    head = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(document)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": document})


async def answer(send: Send, body: bytes, headers: Sequence[Header]) -> None:
    """Answer with JSON."""
    head = [_JSON, (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


def add_headers(send: Send, headers: Sequence[Header]) -> Send:
    """Return a `send` that adds these headers to the answer."""

    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *headers]
        await send(message)

    return adding


def varying(headers: Sequence[Header], on: bytes) -> Headers:
    """Return the headers with `Vary` naming this one beside what it names already; in one line, for caches that read one."""
    named = [value for name, value in headers if name == b"vary"]
    if any(on in value for value in named):
        return list(headers)
    others = [header for header in headers if header[0] != b"vary"]
    return [*others, (b"vary", b", ".join([*named, on]))]
