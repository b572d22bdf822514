"""Every world that can come of one: a breadth-first walk, which meets the shortest way to a broken promise first."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

World = TypeVar("World", bound="Hashable")
Promise = TypeVar("Promise")


def explore(
    start: World, steps: Callable[[World], Iterable[tuple[World, Iterable[Promise]]]], enough: set[Promise]
) -> tuple[set[Promise], int]:
    """
    Visit every world; returns the broken promises (ending when these are `enough`) and the number of worlds.

    `steps` yields the worlds that can come next, each with the promises that are broken on the way there.
    """
    broken = set[Promise]()
    seen, ahead = {start}, deque([start])
    while ahead and not (enough and broken == enough):
        for after, promises in steps(ahead.popleft()):
            broken.update(promises)
            if after not in seen:
                seen.add(after)
                ahead.append(after)
    return broken, len(seen)
