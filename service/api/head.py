"""The head of a request, before anything is done for it: how long it may be, and the host that it must name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from service.api.problems import INVALID_HOST, TOO_LARGE_HEAD

if TYPE_CHECKING:
    from service.api.asgi import Scope

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers together; the server itself gives up on a little more than that."""
_HOST = re.compile(
    rb"(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2}){1,255}|\[[0-9A-Fa-f:.]{2,45}(?:%25[A-Za-z0-9._~-]{1,32})?\])"
    rb"(?::(?:[0-9]{0,4}|[1-5][0-9]{4}|6(?:[0-4][0-9]{3}|5(?:[0-4][0-9]{2}|5(?:[0-2][0-9]|3[0-5])))))?\Z"
)
"""A name or an address, and a port up to 65535 (RFC 3986 section 3.2)."""


def head_refusal(scope: Scope) -> tuple[int, bytes] | None:
    """
    Return status and document of a refusal for a head that is too long, or that names no host or two. O(headers).

    RFC 9112 section 3.2: HTTP/1.1 must name one; HTTP/1.0 may do without, for which the server puts an empty name.
    """
    size = len(scope.get("raw_path", b"")) + len(scope.get("query_string", b""))
    hosts, host = 0, b""
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name == b"host":
            hosts, host = hosts + 1, value
    if size > MAX_HEAD_BYTES:
        return 431, TOO_LARGE_HEAD
    if hosts > 1 or not (_HOST.match(host) if host else scope.get("http_version") != "1.1"):
        return 400, INVALID_HOST
    return None
