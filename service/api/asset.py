"""Answers that stay the same as long as the process lives."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Response

from service.api.compression import MIN_BYTES, accepts_gzip, gzipped_once
from service.api.preconditions import has_tag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litestar import Request

ASSET_HEADERS = ("ETag", "Cache-Control")


class Asset(msgspec.Struct, frozen=True):
    """
    Bytes with the hash that they are known by, and the same in gzip if that is shorter.

    Each has a tag of its own, because a strong tag names bytes.
    """

    content: bytes
    media_type: str
    tag: str
    gzipped: bytes | None = None

    @classmethod
    def of(cls, content: bytes, media_type: str) -> Asset:
        """Return the asset of these bytes."""
        shorter = gzipped_once(content) if len(content) > MIN_BYTES else None
        return cls(content, media_type, hashlib.sha256(content).hexdigest()[:16], shorter)


def asset_response(
    request: Request[Any, Any, Any], asset: Asset, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    """
    Return the asset in a coding that the client accepts, or 304 to a client that has it in either.

    It is asked for each time: a new release may have another.
    """
    in_gzip = asset.gzipped is not None and accepts_gzip(request.scope["headers"])
    tags = [asset.tag, f"{asset.tag}-gzip"][:: -1 if in_gzip else 1]
    told = {"ETag": f'"{tags[0]}"', "Cache-Control": "no-cache", "Vary": "Accept-Encoding", **(headers or {})}
    for tag in tags:
        if has_tag(request, tag):
            told["ETag"] = f'"{tag}"'
            return Response(b"", status_code=304, headers=told, media_type=asset.media_type)
    if asset.gzipped is not None and in_gzip:
        told["Content-Encoding"] = "gzip"
        return Response(asset.gzipped, headers=told, media_type=asset.media_type)
    return Response(asset.content, headers=told, media_type=asset.media_type)
