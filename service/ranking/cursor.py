"""Opaque page cursors: a point of the total order with an authentication code, the same for both stores."""

from __future__ import annotations

import base64
import hashlib
import hmac
from contextlib import suppress

import msgspec

from service.errors import Invalid
from service.model import Page, Point

_LAYOUT = 1
_CODE_BYTES = 12
_decode = msgspec.json.Decoder(tuple[int, Point]).decode


class Cursors:
    """Seals and opens cursors with one key; every process that shares the key accepts them."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def seal(self, point: Point) -> str:
        """Return the cursor that means "strictly after this point"."""
        body = msgspec.json.encode((_LAYOUT, point))
        return base64.urlsafe_b64encode(self._code(body) + body).rstrip(b"=").decode()

    def after(self, page: Page) -> str | None:
        """Return the cursor that continues a page, None at the end of the board."""
        if not page.rows or page.rows[-1].position >= page.board.total:
            return None
        return self.seal(Point(page.rows[-1].rating, page.rows[-1].username))

    def open(self, cursor: str) -> Point:
        """Return the point; raises `Invalid` for a cursor that this key did not seal."""
        try:
            raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raw = b""
        code, body = raw[:_CODE_BYTES], raw[_CODE_BYTES:]
        # Sealed again and compared as text: base64 has several spellings of the same bytes.
        if hmac.compare_digest(code, self._code(body)):
            # A cursor of ours, but of another release, may hold something else.
            with suppress(msgspec.ValidationError):
                layout, point = _decode(body)
                if layout == _LAYOUT and self.seal(point) == cursor:
                    return point
        raise Invalid(("cursor", "is not a cursor of this leaderboard"))

    def _code(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)[:_CODE_BYTES]
