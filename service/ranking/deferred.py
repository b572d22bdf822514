"""
Lines of a list whose username belongs to another user, kept until the end of the list.

Users may swap names, or pass a name on, whatever the order of the lines: what counts is who has which name after the
last line. A deferred line is taken at the end if the user who has its name is renamed by another deferred line that is
taken, or has lost the name meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.model import UserId
    from service.ranking.bulk import Line

MOST = 100_000
"""The most lines that are kept (some 30 MB); a line beyond them is refused at once."""


class Renames(NamedTuple):
    """
    Lines to take in this order, so that each finds its name free.

    In a cycle no name is free. So the user of each cycle's last line, listed in `parked`, gives up the old name first.
    """

    lines: list[Line]
    parked: list[UserId]


class Deferred:
    """The deferred lines of one list, each with an id and a name that no other deferred line has."""

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        self._by_id: dict[UserId, Line] = {}
        self._by_name: dict[str, Line] = {}
        for line in lines:
            self._put(line)

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def lines(self) -> list[Line]:
        """The lines, in the order of the list."""
        return sorted(self._by_id.values(), key=lambda line: line.number)

    def copy(self) -> Deferred:
        """Return another set of the same lines. O(lines)."""
        return Deferred(self._by_id.values())

    def add(self, line: Line) -> bool:
        """Keep a line that has an id; return False if `MOST` are kept already. Raises `ValueError` without an id."""
        if len(self) >= MOST:
            return False
        self._put(line)
        return True

    def remove(self, line: Line) -> None:
        """Keep a line no longer."""
        if line.id is not None:
            del self._by_id[line.id]
        del self._by_name[line.username.lower()]

    def of_user(self, user_id: UserId) -> Line | None:
        """Return the line about this user."""
        return self._by_id.get(user_id)

    def of_name(self, name: str) -> Line | None:
        """Return the line that takes this lower-case name."""
        return self._by_name.get(name)

    def _put(self, line: Line) -> None:
        if line.id is None:
            message = "a line without an id is about the user of its name, so it is never deferred"
            raise ValueError(message)
        self._by_id[line.id] = self._by_name[line.username.lower()] = line

    def resolve(self, owners: Mapping[str, UserId], *, limit: int) -> tuple[Renames, dict[int, str]]:
        """
        Return which lines can be taken now, about `limit` of them, and the reason of each that never can.

        `owners` is the user who has each lower-case name now. A line waits for the line of its name's owner. So lines
        form paths, each of which is taken from its end, and cycles, each of which is taken as a whole. O(lines).
        """
        renames, refused = Renames([], []), {}
        is_taken: dict[int, bool] = {}
        for line in self.lines:
            path: list[Line] = []
            following: Line | None = line
            blocked = False
            while following is not None and following.number not in is_taken:
                is_taken[following.number] = True
                path.append(following)
                owner = owners.get(following.username.lower())
                if owner is None or owner == following.id:
                    following = None
                else:
                    following = self._by_id.get(owner)
                    blocked = following is None
            if not path:
                continue
            if following is path[0] and path[0].id is not None:
                renames.parked.append(path[0].id)
            elif following is not None:
                blocked = not is_taken[following.number]
            for each in reversed(path):
                is_taken[each.number] = not blocked
                if blocked:
                    refused[each.number] = belongs_to(owners[each.username.lower()])
                else:
                    renames.lines.append(each)
            if len(renames.lines) >= limit:
                break
        return renames, refused


def belongs_to(owner: UserId) -> str:
    """Return the reason of a line whose name another user keeps."""
    return f"the username belongs to the user {owner}"
