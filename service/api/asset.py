"""Answers that stay the same as long as the process lives."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Response

from service.api.preconditions import has_tag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litestar import Request

ASSET_HEADERS = ("ETag", "Cache-Control")


class Asset(msgspec.Struct, frozen=True):
    """Bytes with the hash that they are known by."""

    content: bytes
    media_type: str
    tag: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> Asset:
        """Return the asset of these bytes."""
        return cls(content, media_type, hashlib.sha256(content).hexdigest()[:16])


def asset_response(
    request: Request[Any, Any, Any], asset: Asset, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    """Return the asset, or 304 to whoever has it. It is asked for each time: a new release may have another."""
    told = {"ETag": f'"{asset.tag}"', "Cache-Control": "no-cache", **(headers or {})}
    if has_tag(request, asset.tag):
        return Response(b"", status_code=304, headers=told, media_type=asset.media_type)
    return Response(asset.content, headers=told, media_type=asset.media_type)
