"""What the nemesis does, and when: one seed, one schedule."""

from __future__ import annotations

import random

import msgspec

FAULTS = (
    "kill node",
    "stop node",
    "redis killed, restarted from its snapshot",
    "redis killed, restarted empty",
    "redis stopped",
    "flushall",
    "delete board",
    "delete users",
    "delete state",
    "slow way",
    "requests lost",
    "replies lost",
    "held back",
    "held back",
    "refused",
    "script flush",
    "sessions terminated",
    "postgres crashed",
    "incremental",
    "full",
)
WORK = ("incremental", "full", "full")
REST_SHARE = 0.4
"""Of a long run, in the middle and at the end, nothing is done: to see that nothing is left of what was."""
LONG_SECONDS = 20.0


class Step(msgspec.Struct, frozen=True):
    """One fault: when it begins (seconds into the run), how long it holds, and at which node, None for all."""

    at: float
    name: str
    seconds: float
    node: int | None


def schedule(seed: int, seconds: float, *, nodes: int) -> list[Step]:
    """Return the steps of a run in the order of time; some overlap."""
    chance = random.Random(seed)
    steps: list[Step] = []
    if seconds >= LONG_SECONDS:
        rest = seconds * REST_SHARE / 2
        spans = [(1.0, seconds / 2 - rest), (seconds / 2 + 0.5, seconds - rest)]
    else:
        spans = [(0.3, seconds * 0.75)]
    names: list[str] = []
    for first, last in spans:
        at = first
        while at < last:
            # Every fault comes before one comes again; late puts are the most telling.
            names = names or chance.sample(FAULTS, len(FAULTS))
            name = names.pop()
            long = chance.uniform(0.2, min(3.0, max(0.3, last - at)))
            steps.append(Step(round(at, 3), name, round(long, 3), chance.choice((None, *range(nodes)))))
            # Two at a time now and then: the second begins while the first still holds.
            at += long * chance.choice((0.3, 0.6, 1.0)) + chance.uniform(0.1, 0.5)
            if chance.random() < 0.3:
                steps.append(Step(round(at, 3), chance.choice(WORK), 0, None))
    return steps
