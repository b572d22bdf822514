"""
Which ids and names may stand in a list more than once, in a fixed amount of memory.

Lines are judged by what earlier lines took, so what each took would have to be noted, which costs as much as another
index of the users. Whoever can read the list twice learns first which few lines that is about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.ranking.bulk import Line

_SLOTS = 1 << 25
"""A byte each. Of a million lines 3 in 100 share one by chance, with ids 11 in 100, and are noted for nothing."""
_OF_NAMES = 0x5BD1E995


class Repeats:
    """
    Every line is added first; then `may_repeat` is never wrongly False, and wrongly True for a few.

    Where some lines have an id and others not, any two may be about one user, so it is True for all.
    """

    def __init__(self) -> None:
        self._times = bytearray(_SLOTS)
        self._with_id = self._without_id = False

    def add(self, line: Line) -> None:
        """Count a well-formed line."""
        times = self._times
        if line.id is None:
            self._without_id = True
        else:
            self._with_id = True
            slot = hash(line.id) & (_SLOTS - 1)
            times[slot] = 1 if not times[slot] else 2
        slot = (hash(line.username.lower()) ^ _OF_NAMES) & (_SLOTS - 1)
        times[slot] = 1 if not times[slot] else 2

    def may_repeat(self, line: Line) -> bool:
        """Whether another line may have this one's id or, regardless of case, its name."""
        if self._with_id and self._without_id:
            return True
        times = self._times
        return (line.id is not None and times[hash(line.id) & (_SLOTS - 1)] > 1) or times[
            (hash(line.username.lower()) ^ _OF_NAMES) & (_SLOTS - 1)
        ] > 1
