"""What Postgres held when: every committed state of every user, with the times between which it may have been true."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable

from .history import Commit

Predicate = Callable[[Commit], bool]


class Life:
    """
    The states of one user, oldest first.

    State `i` may have been true from `starts[i]` to `ends[i]`: from when it may have been committed until its
    successor surely was. `sure[i]` is when it surely was committed.
    """

    def __init__(self, commits: Iterable[Commit]) -> None:
        self.states = sorted(commits, key=lambda commit: commit.version)
        count = len(self.states)
        self.starts = [commit.not_before for commit in self.states]
        self.sure = [math.inf if commit.not_after is None else commit.not_after for commit in self.states]
        # Of one user the versions are in the order of the commits, so each bounds its neighbours.
        for number in range(1, count):
            self.starts[number] = max(self.starts[number], self.starts[number - 1])
        for number in range(count - 2, -1, -1):
            self.sure[number] = min(self.sure[number], self.sure[number + 1])
        self.ends = [*self.sure[1:], math.inf]

    def during(self, begin: float, end: float) -> tuple[int, int]:
        """Return the range of states that may have been true at some moment between the two. O(log n)."""
        return bisect_left(self.ends, begin), bisect_right(self.starts, end)

    def may_be_absent(self, begin: float) -> bool:
        """Whether the user may not have existed yet at that moment."""
        return not self.sure or self.sure[0] > begin


class Timeline:
    """Everybody's life."""

    def __init__(self, commits: Iterable[Commit]) -> None:
        by_id: defaultdict[str, list[Commit]] = defaultdict(list)
        for commit in commits:
            by_id[commit.id].append(commit)
        self.lives = {user_id: Life(found) for user_id, found in by_id.items()}

    def mixed(self, begin: float, end: float, holds: Predicate, *, but: str = "") -> tuple[int, int]:
        """
        Return the fewest and the most users for whom it holds, when each is seen at a moment of their own.

        So a mirror sees them, which takes later commits in any order.
        """
        low = high = 0
        for user_id, life in self.lives.items():
            if user_id == but:
                continue
            first, last = life.during(begin, end)
            seen = [holds(state) for state in life.states[first:last]]
            high += any(seen)
            low += all(seen) and bool(seen) and not life.may_be_absent(begin)
        return low, high

    def at_once(self, begin: float, end: float, holds: Predicate, *, but: str = "") -> tuple[int, int]:
        """Return the fewest and the most users for whom it held at one moment between the two, the same for all."""
        always = 0
        surely: list[tuple[float, int]] = []  # changes of the number of those for whom it surely holds
        maybe: list[tuple[float, int]] = []
        for user_id, life in self.lives.items():
            if user_id == but:
                continue
            first, last = life.during(begin, end)
            seen = [holds(state) for state in life.states[first:last]]
            if seen and all(seen) and not life.may_be_absent(begin):
                always += 1
            elif any(seen):
                spans = [(life.starts[first + n], life.ends[first + n]) for n, true in enumerate(seen) if true]
                others = [(life.starts[first + n], life.ends[first + n]) for n, true in enumerate(seen) if not true]
                if life.may_be_absent(begin):
                    others.append((-math.inf, life.sure[0]))
                maybe += _steps(spans, begin, end)
                surely += [(at, -step) for at, step in _steps(others, begin, end)]
                always += 1  # taken away again wherever one of the others may be true
                maybe += [(-math.inf, -1)]
        return always + _extreme(surely, begin, end, min), always + _extreme(maybe, begin, end, max)


def _steps(spans: list[tuple[float, float]], begin: float, end: float) -> list[tuple[float, int]]:
    """+1 where the union of the spans begins and -1 just after it ends, cut to the window."""
    steps: list[tuple[float, int]] = []
    reached = -math.inf
    for first, last in sorted((max(first, begin), min(last, end)) for first, last in spans):
        if first > last:
            continue
        if first > reached:
            if reached > -math.inf:
                steps.append((math.nextafter(reached, math.inf), -1))
            steps.append((first, 1))
        reached = max(reached, last)
    if reached > -math.inf:
        steps.append((math.nextafter(reached, math.inf), -1))
    return steps


def _extreme(steps: list[tuple[float, int]], begin: float, end: float, best: Callable[[int, int], int]) -> int:
    """The smallest or largest sum at any moment of the window; steps of the same moment are taken together."""
    found = total = sum(step for at, step in steps if at <= begin)
    within = sorted((at, step) for at, step in steps if begin < at <= end)
    for number, (at, step) in enumerate(within):
        total += step
        if number + 1 == len(within) or within[number + 1][0] > at:
            found = best(found, total)
    return found
