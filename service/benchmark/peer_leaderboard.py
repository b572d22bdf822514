"""
Asks the library leaderboard, one call after the other, and prints a sample as JSON.

    python peer_leaderboard.py REDIS_URL KEY IDS_FILE rank|batch|page|around|version SECONDS

Run by the Python of a virtual environment that has it; imports nothing of ours.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_FEWEST_CALLS = 3


def _timed(call: Callable[[], object], seconds: float) -> tuple[list[float], float]:
    times: list[float] = []
    began = now = time.perf_counter()
    while now - began < seconds or len(times) < _FEWEST_CALLS:
        call()
        before, now = now, time.perf_counter()
        times.append((now - before) * 1000)
    return sorted(times), now - began


def main(arguments: list[str]) -> None:
    """Measure and print."""
    url, key, ids_file, what = arguments[:4]
    seconds = float(arguments[4])
    if what == "version":
        print(json.dumps(importlib.metadata.version("leaderboard")))
        return
    from leaderboard.leaderboard import Leaderboard  # noqa: PLC0415  the user's
    from redis import StrictRedis  # noqa: PLC0415  likewise

    board = Leaderboard(key, redis_connection=StrictRedis.from_url(url), page_size=25)
    ids = Path(ids_file).read_text(encoding="ascii").split()
    asked = iter(lambda: ids[random.randrange(len(ids))], None)  # noqa: S311  no secret
    calls: dict[str, Callable[[], object]] = {
        "rank": lambda: board.score_and_rank_for(next(asked)),
        "batch": lambda: board.ranked_in_list([next(asked) for _ in range(100)]),
        "page": lambda: board.leaders(1 + random.randrange(max(len(ids) // 25, 1))),  # noqa: S311  no secret
        "around": lambda: board.around_me(next(asked)),
    }
    _timed(calls[what], min(1, seconds))
    times, took = _timed(calls[what], seconds)
    p50, p95, p99 = (times[math.ceil(share * len(times)) - 1] for share in (0.5, 0.95, 0.99))
    sample = {"requests": len(times), "seconds": took, "failed": 0, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}
    print(json.dumps({**sample, "max_ms": times[-1]}))


if __name__ == "__main__":
    main(sys.argv[1:])
