"""The command line of `ladder benchmark`, and of each part of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.arguments import directory, file_name, stores
from service.checkout import IS_CHECKOUT, ROOT

DESCRIPTION = """\
Measure Ladder on this machine: what a rank costs, and how many requests a second the service answers.

  rank     what a rank and a page cost in the stores: SQL against the product's scripts, over sizes
  http     requests a second and latency of the running service, beside a bare handler of the same server
  write    durable ratings a second, and how far the mirror is behind meanwhile
  soak     memory of the service's processes over a long time of mixed load
  report   docs/benchmarks.md and its plots, from what the others wrote with --output docs/benchmarks

A measurement uses a database of its own (ladder_benchmark_N) and Redis database 9, which must be empty.
"""
EPILOG = f"""\
{stores.HELP}

exit codes:
  0    measured
  1    something failed that should not have
  2    wrong arguments or variables, or something is missing here
  3    measured, but some requests failed
  5    a store is unavailable
  130  interrupted
"""


OPERATIONS = ("rank", "user", "page-25", "page-100", "neighbors", "ranks-100", "put", "page-100-ab")
"""What `http` measures, in this order."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command can be told."""
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    for name, (summary, add) in _PARTS.items():
        part = parts.add_parser(name, help=summary, allow_abbrev=False)
        add(part)
        part.add_argument("--seed", metavar="N", type=int, default=1, help="of what is asked for (%(default)s)")
        part.add_argument("--keep", action="store_true", help="leave the users for the next run")
        part.add_argument("--output", metavar="DIR", type=file_name, help="write DIR/PART.json too; - means --json")
        part.add_argument("--json", action="store_true", help="print JSON instead of a table")
        stores.add_option(part)
    _report(parts.add_parser("report", help="write docs/benchmarks.md and its plots", allow_abbrev=False))


def _rank(part: argparse.ArgumentParser) -> None:
    part.add_argument(
        "--sizes", metavar="N,N...", default="10000,100000,1000000", help="users on the board (%(default)s)"
    )
    part.add_argument("--seconds", metavar="S", type=float, default=1, help="of each way, a round (%(default)s)")
    part.add_argument("--rounds", metavar="N", type=int, default=3, help="(%(default)s)")
    part.add_argument("--redis-rank", metavar="DIR", type=directory, help="where npm installed redis-rank and ioredis")
    part.add_argument(
        "--leaderboard", metavar="DIR", type=directory, help="a virtual environment with leaderboard and redis<3"
    )


def _http(part: argparse.ArgumentParser) -> None:
    _add_users(part)
    part.add_argument("--connections", metavar="N", type=int, default=64, help="(%(default)s)")
    part.add_argument("--seconds", metavar="S", type=float, default=5, help="of load, a round (%(default)s)")
    part.add_argument("--rounds", metavar="N", type=int, default=3, help="(%(default)s)")
    _add_workers(part)
    part.add_argument("--only", metavar="NAMES", help=f"of {', '.join(OPERATIONS)}, separated by commas")
    part.add_argument("--no-bare", action="store_true", help="leave the bare handler out")
    part.add_argument("--url", help="measure a service that runs already, with the first --users users of its board")
    part.add_argument("--writes", action="store_true", help="also change ratings of the users behind --url")
    _add_generator(part)


def _write(part: argparse.ArgumentParser) -> None:
    _add_users(part)
    part.add_argument("--connections", metavar="N,N...", default="1,16,64,256", help="(%(default)s)")
    part.add_argument("--seconds", metavar="S", type=float, default=10, help="of load each (%(default)s)")
    _add_workers(part)
    _add_generator(part)


def _soak(part: argparse.ArgumentParser) -> None:
    _add_users(part)
    part.add_argument("--connections", metavar="N", type=int, default=64, help="(%(default)s)")
    part.add_argument("--minutes", metavar="M", type=float, default=60, help="of load (%(default)s)")
    _add_workers(part)
    _add_generator(part)


def _report(page: argparse.ArgumentParser) -> None:
    page.add_argument(
        "--input",
        metavar="DIR",
        type=directory,
        default=(ROOT if IS_CHECKOUT else Path()) / "docs" / "benchmarks",
        help="the JSON (docs/benchmarks)",
    )
    page.add_argument(
        "--page", metavar="FILE", type=file_name, help="where the page goes (DIR.md); - writes it to standard output"
    )
    page.add_argument("--no-plots", action="store_true", help="leave the plots as they are")


def _add_users(part: argparse.ArgumentParser) -> None:
    part.add_argument("--users", metavar="N", type=int, default=1_000_000, help="users on the board (%(default)s)")


def _add_workers(part: argparse.ArgumentParser) -> None:
    part.add_argument("--workers", metavar="N", type=int, help="processes that serve (one per core)")


def _add_generator(part: argparse.ArgumentParser) -> None:
    part.add_argument("--generator", choices=("auto", "wrk", "built-in"), default="auto", help="what makes the load")


_PARTS = {
    "rank": ("what a rank and a page cost in the stores, by SQL and by the product's scripts, over sizes", _rank),
    "http": ("what the running service answers, beside a bare handler of the same server", _http),
    "write": ("durable ratings a second, and how far the mirror is behind while they are written", _write),
    "soak": ("how much memory the processes that serve need after a long time of mixed load", _soak),
}
