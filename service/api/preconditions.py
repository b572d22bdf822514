"""If-Match and If-None-Match: lists of entity tags, as RFC 9110 has them, and the versions that they name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from service.api.inputs import header_list
from service.errors import Invalid
from service.model import Version

if TYPE_CHECKING:
    from typing import Any

    from litestar import Request

MAX_TAGS = 100
"""Tags in one If-Match: each is compared with the user's version under the row's lock."""
_ETAG = re.compile(r'[ \t]*(?:(W/)?"([ !#-~\x80-\xff]*)"[ \t]*)?(?:,|$)')
_VERSION = re.compile(r"v([1-9][0-9]{0,14})(?:-[0-9]+-[0-9]+)?\Z")


def etags(header: str) -> list[tuple[bool, str]]:
    """
    Return (is weak, tag) of each tag in a list; empty elements are skipped (RFC 9110 section 5.6.1.2).

    Raises ValueError if the header is not a list of tags. O(length).
    """
    tags, place = [], 0
    while place < len(header):
        found = _ETAG.match(header, place)
        if not found:
            message = "is not a list of entity tags"
            raise ValueError(message)
        if found[2] is not None:
            tags.append((found[1] is not None, found[2]))
        place = found.end()
    return tags


def has_tag(request: Request[Any, Any, Any], tag: str) -> bool:
    """Whether If-None-Match names this tag, weakly compared; a header that is not a list of tags names nothing."""
    header = header_list(request, "if-none-match")
    if header is None or header == "*":
        return header == "*"
    try:
        return any(known == tag for _, known in etags(header))
    except ValueError:
        return False


def wanted_versions(request: Request[Any, Any, Any]) -> tuple[Version, ...] | None:
    """
    Return the versions that If-Match names; None if any will do, an empty tuple if none can.

    Raises `Invalid` for a header that is not `*` or a list of 1 to `MAX_TAGS` tags.
    """
    header = header_list(request, "if-match")
    if header is None or header == "*":
        return None
    try:
        tags = etags(header)
    except ValueError as error:
        raise Invalid(("If-Match", str(error))) from None
    if not 1 <= len(tags) <= MAX_TAGS:
        raise Invalid(("If-Match", f'must be 1 to {MAX_TAGS} tags like "v7", or *'))
    # A weak tag never matches here (RFC 9110 section 13.1.1), nor does one that was never given out.
    versions = [_VERSION.match(tag) for weak, tag in tags if not weak]
    return tuple(dict.fromkeys(Version(int(version[1])) for version in versions if version))
