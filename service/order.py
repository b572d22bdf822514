"""
The tie rule, pure: how a place in `rating DESC, username ASC` becomes a sorted-set member.

Redis orders equal scores by the member's bytes, ascending, so ZREVRANGE walks them descending. A
member is therefore the username with its alphabet reversed (`chr(0xA7 - c)`), a terminator that is
greater than every encoded byte so that a prefix sorts after its extensions, and the id:

    alice, id 42  ->  F;>DB~42

Plain ZREVRANGE and ZREVRANK then equal `ORDER BY rating DESC, username ASC` byte for byte. Encoding is
an involution: encode and decode are the same function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.model import Row, UserId

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TERMINATOR = "~"
_REVERSED = {code: 0xA7 - code for code in range(0x2D, 0x7B)}
_REVERSED_BYTES = bytes(_REVERSED.get(code, code) for code in range(256))
_SEPARATOR = b"\n"


def encode(username: str) -> str:
    """Return the username with the order of its alphabet reversed; its own inverse. O(length)."""
    return username.translate(_REVERSED)


def member(username: str, user_id: UserId) -> str:
    """Return the sorted-set member that puts this user in its place among equal ratings."""
    return f"{encode(username)}{TERMINATOR}{user_id}"


def decode(board_member: str) -> tuple[str, UserId]:
    """Return (username, id) of a sorted-set member."""
    encoded, _, user_id = board_member.partition(TERMINATOR)
    return encode(encoded), UserId(user_id)


def decode_all(members: Sequence[bytes]) -> list[tuple[str, UserId]]:
    """Return `decode` of each; at once, because letter by letter in Python costs more than all else in a page."""
    joined = _SEPARATOR.join(members)
    plain, reversed_ = joined.decode().split("\n"), joined.translate(_REVERSED_BYTES).decode().split("\n")
    if len(plain) != len(members):
        # Typed in by hand: no name and no id of ours holds the separator.
        return [decode(member.decode()) for member in members]
    return [
        (username.partition(TERMINATOR)[0], UserId(own.partition(TERMINATOR)[2]))
        for own, username in zip(plain, reversed_, strict=True)
    ]


def ranked(rows: Iterable[tuple[UserId, str, int]], *, position: int, rank: int) -> list[Row]:
    """
    Give consecutive (id, username, rating) rows of the board their positions and ranks.

    `position` and `rank` are those of the first row. Only it needs a count: from there on a row whose
    rating differs from its predecessor's has its own position as its rank, any other shares the rank.
    """
    board: list[Row] = []
    above: int | None = None
    for place, (user_id, username, rating) in enumerate(rows, start=position):
        if above is not None and rating != above:
            rank = place
        board.append(Row(place, rank, user_id, username, rating))
        above = rating
    return board
