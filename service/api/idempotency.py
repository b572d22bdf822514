"""The Idempotency-Key of a request: what it is, and what it stands for."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import msgspec

from service.api.inputs import header_list
from service.errors import Invalid
from service.model import OnceOnly

if TYPE_CHECKING:
    from litestar import Request

HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"
_KEY = re.compile(r"[!-~]{1,64}\Z")


def once_only(request: Request[Any, Any, Any], asked: msgspec.Struct) -> OnceOnly | None:
    """
    Return the request's key and what it belongs to: method, address and body. None without a key.

    The body as it was understood: neither spaces nor the order of its fields make another request.
    Raises `Invalid` for a key that is none, or for two.
    """
    key = header_list(request, HEADER.lower())
    if key is None:
        return None
    if not _KEY.match(key):
        raise Invalid((HEADER, "must be 1 to 64 visible ASCII characters"))
    target = f"{request.scope['method']} {request.scope['path']}\n".encode()
    return OnceOnly(key, hashlib.sha256(target + msgspec.json.encode(asked)).digest())
