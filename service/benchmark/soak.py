"""
`benchmark.py soak`: how much memory the processes that serve need after a long time of mixed load.

Two thirds of the requests ask for a rank, a twentieth writes, and the others are everything else. Linux only.
"""

from __future__ import annotations

import random
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from service.progress import progress

from . import load, servers
from .environment import describe
from .kinds import KINDS
from .results import Moment, SoakResult
from .stores import prepared

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

MIX = {"rank": 65, "user": 10, "page-25": 8, "page-100": 4, "neighbors": 6, "ranks-100": 2, "put": 5}
"""Percent of the requests."""
_LINES = 200_000
_STRETCHES = 120


def run(options: argparse.Namespace, database_url: str, redis_url: str) -> SoakResult:
    """Measure over the stores of these servers."""
    generator = load.find(options.generator)
    source = random.Random(options.seed)  # noqa: S311  the same requests every time
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ladder-benchmark-")))
        stores = stack.enter_context(prepared(database_url, redis_url, options.users, keep=options.keep))
        server = stack.enter_context(
            servers.service(stores.database_url, stores.redis_url, folder, workers=options.workers)
        )
        requests = load.write_requests(folder / "mix.txt", mixed(stores.ids(), source))
        result = SoakResult(
            environment=describe(stores.database_url, stores.redis_url),
            users=options.users,
            workers=options.workers,
            connections=options.connections,
            minutes=options.minutes,
            seed=options.seed,
        )
        total = 60 * options.minutes
        stretch = max(total / _STRETCHES, 1.0)
        began = time.monotonic()
        with progress("Load", round(total)) as report:
            while True:
                took = time.monotonic() - began
                result.moments.append(Moment(took / 60, [resident_mib(pid) for pid in server.workers()]))
                if took >= total:
                    break
                sample = generator.run(
                    server.url,
                    requests,
                    connections=options.connections,
                    seconds=min(stretch, max(total - took, 1.0)),
                    skip=source.randrange(_LINES),
                )
                result.samples.append(sample)
                largest = max(result.moments[-1].resident_mib)
                report(round(took), f"{sample.per_second:,.0f} requests/s, {largest:.0f} MiB")
    return result


def mixed(ids: Sequence[str], source: random.Random) -> list[str]:
    """Requests of every kind, in random order."""
    some = source.sample(ids, min(len(ids), _LINES))
    lines: list[str] = []
    for name, percent in MIX.items():
        made = KINDS[name].lines(some, source)
        lines += source.choices(made, k=_LINES * percent // 100)
    source.shuffle(lines)
    return lines


def resident_mib(pid: int) -> float:
    """What a process holds in memory."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (kib,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kib) / 1024
