"""The reference the scripts are compared with: a dict, and the rule that the version decides."""

from __future__ import annotations

from .calls import Row


class Reference:
    """The board as the contract's words have it; `floor` as begin sets it."""

    def __init__(self, floor: int = 0) -> None:
        self.users: dict[str, Row] = {}
        self.floor = floor

    def copy(self) -> Reference:
        """Return it as it is now, to fall back to."""
        copied = Reference(self.floor)
        copied.users = dict(self.users)
        return copied

    def write(self, row: Row, *, bypass: bool = False) -> str:
        """Take a row over if it is news; tell what became of it."""
        held = self.users.get(row.id)
        if held is None and row.version <= self.floor and not bypass:
            return "floor"
        if held is not None and held.version >= row.version:
            return "same" if held.version == row.version else "newer"
        self.users[row.id] = row
        return "applied"

    def fix(self, row: Row, want: int | str) -> str:
        """Put a row in place of the wanted version, of any older one if that is ""; tell what became of it."""
        if want == "":
            return self.write(row, bypass=True)
        held = self.users.get(row.id)
        if held is None or held.version != want:
            return "raced"
        self.users[row.id] = row
        return "applied"

    def board(self) -> list[tuple[str, str, int]]:
        """Return (name, id, rating) in the board's order."""
        order = sorted((-row.rating, row.name, row.id) for row in self.users.values() if row.rating is not None)
        return [(name, user_id, -rating) for rating, name, user_id in order]

    def place(self, rating: int, name: str, *, besides: str) -> tuple[int, int]:
        """Return the rank and position that this rating and name have among everybody else."""
        others = [(-other, their_name) for their_name, user_id, other in self.board() if user_id != besides]
        return 1 + sum(other < -rating for other, _ in others), 1 + sum(other < (-rating, name) for other in others)
