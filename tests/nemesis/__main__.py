"""
Run the nemesis: .venv/bin/python -m tests.nemesis --seeds 1-200 --seconds 30

One line per seed. The history of a seed that fails, with what is wrong in it, stays in --keep. Exit code 1 if one
failed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from .run import run


def main() -> int:
    """Run the seeds; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.nemesis", description="Chaos over real processes.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="run one seed")
    which.add_argument("--seeds", help="run the seeds from the first to the last: 1-200")
    parser.add_argument("--seconds", type=float, default=30, help="how long each run storms (default: 30)")
    parser.add_argument("--keep", type=Path, default=Path("nemesis-failures"), help="where failing runs are kept")
    options = parser.parse_args()
    first, _, last = (options.seeds or str(options.seed)).partition("-")
    failed = []
    for seed in range(int(first), int(last or first) + 1):
        verdict = asyncio.run(run(seed, options.seconds, keep=options.keep))
        print(verdict, flush=True)  # noqa: T201
        for violation in verdict.violations[:5]:
            print(f"  {violation[:600]}", flush=True)  # noqa: T201
        failed += [seed] if verdict.violations else []
    print(f"failed: {failed}" if failed else "none failed", flush=True)  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
