"""The replies of the board's scripts, as the product's types; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.model import Counted, Page, Placed, Roster, Row, Standing, UserId, Version
from service.order import decode_all, ranked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.model import Board, MirrorWrite


def standings(ids: Sequence[UserId], reply: Sequence[Any]) -> Iterator[tuple[UserId, Standing]]:
    """Yield the users of a `rank` reply who are on the board, with where they stand."""
    for user_id, first in zip(ids, range(3, len(reply), 4), strict=True):
        version, rating, rank, position = reply[first : first + 4]
        if version:
            yield user_id, Standing(Version(int(version)), int(rating), rank, position)


def page(board: Board, reply: Sequence[Any]) -> Page:
    """Return the rows of a `slice_at`, `slice_after` or `neighbors` reply."""
    _, _, _, offset, higher, flat = reply
    rows = (
        (user_id, username, int(score))
        for (username, user_id), score in zip(decode_all(flat[::2]), flat[1::2], strict=True)
    )
    return Page(board, ranked(rows, position=offset + 1, rank=higher + 1))


def roster(board: Board, ids: Sequence[UserId], reply: Sequence[Any]) -> tuple[Roster, dict[UserId, Version]]:
    """Return the rows of a `rows_of` reply, and the versions of those who are on the board."""
    rows: list[Row | None] = []
    versions: dict[UserId, Version] = {}
    # As if they were members, in which the name stands in front.
    members = [b"%b~%b" % (encoded, version) for version, _, encoded in (held.partition(b"|") for held in reply[3::4])]
    for user_id, (username, version), first in zip(ids, decode_all(members), range(3, len(reply), 4), strict=True):
        if not version:
            rows.append(None)
            continue
        versions[user_id] = Version(int(version))
        rows.append(Row(reply[first + 3], reply[first + 2], user_id, username, int(reply[first + 1])))
    return Roster(board, rows), versions


def counted(board: Board, reply: Sequence[Any]) -> Counted:
    """Return what a `histogram` reply counts."""
    return Counted(board, reply[3], list(reply[8:]), [int(score) for score in reply[4:8] if score != b""])


_OUTCOMES: dict[bytes, MirrorWrite] = {
    b"applied": "applied",
    b"same": "applied",  # the tailer was faster with this very version
    b"newer": "superseded",
    b"floor": "pending",
}


def placed(outcome: bytes, rank: int | bytes, position: int | bytes, previous: int | bytes) -> Placed:
    """Return what a `put` reply says of one user who was created or rated."""
    if rank == b"":
        return Placed("pending")
    return Placed(_OUTCOMES[outcome], int(rank), int(position), None if previous == b"" else int(previous))


def removed(outcome: bytes, lag: int | bytes) -> Placed:
    """Return what a `put` reply says of one user who was deleted; `lag` is that of the whole reply."""
    # Without a rank to tell by: a board that says how far it lags is ready.
    return Placed("pending" if lag == b"" else _OUTCOMES[outcome])
