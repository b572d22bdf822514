#!/usr/bin/env python3
"""
Measure Ladder on this machine: what a rank costs, and how many requests a second the service answers.

  rank     what a rank and a page cost in the stores: SQL against the product's scripts, over sizes
  http     requests a second and latency of the running service, beside a bare handler of the same server
  write    durable ratings a second, and how far the mirror is behind meanwhile
  soak     memory of the service's processes over a long time of mixed load
  report   docs/benchmarks.md and its plots, from what the others wrote with --output docs/benchmarks

Whoever measures uses a database of their own (ladder_benchmark_N) and Redis database 9, which must be empty.
"""

from __future__ import annotations

import _venv

# isort: split
import argparse
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import _stores
import msgspec
import psycopg
import redis
from _benchmark import over_http, rank, report, soak, tables, writes
from _benchmark.load import GeneratorFailed
from _benchmark.servers import ServiceFailed
from _benchmark.stores import Unusable

from service.embedded import EmbeddedError
from service.errors import LadderError, OutcomeUnknown, Unavailable, explain
from service.logs import configure
from service.settings import SettingsError

_EPILOG = f"""\
{_stores.HELP}

exit codes:
  0    measured
  1    something failed that should not have
  2    wrong arguments or variables, or something is missing here
  3    measured, but some requests failed
  5    a store is unavailable
  130  interrupted
"""


class Part(Protocol):
    """A module that measures something."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add what this part can be told."""

    def run(self, options: argparse.Namespace, database_url: str, redis_url: str) -> Any:
        """Measure over databases of its own in these servers."""


_OK, _FAILED, _WRONG, _SOME_FAILED, _AWAY, _INTERRUPTED = 0, 1, 2, 3, 5, 130
_PARTS: dict[str, Part] = {"rank": rank, "http": over_http, "write": writes, "soak": soak}


def main() -> int:
    """Measure and report; returns the exit code."""
    options = _options()
    configure("warning")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(options)
    except KeyboardInterrupt:
        return _blame("Interrupted", _INTERRUPTED)
    except (Unusable, SettingsError, GeneratorFailed) as error:
        return _blame(error, _WRONG)
    except (Unavailable, OutcomeUnknown, EmbeddedError, psycopg.OperationalError, redis.ConnectionError) as error:
        return _blame(error, _AWAY)
    except (LadderError, ServiceFailed, OSError, psycopg.Error, redis.RedisError) as error:
        return _blame(error, _FAILED)


def _blame(error: BaseException | str, code: int) -> int:
    said = error if isinstance(error, str) else explain(error)
    print(f"benchmark.py: {said.strip().rstrip('.')}.", file=sys.stderr)
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmark.py",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    for name, module in _PARTS.items():
        part = parts.add_parser(name, help=str(module.__doc__).strip().splitlines()[0], allow_abbrev=False)
        module.add_arguments(part)
        part.add_argument("--seed", metavar="N", type=int, default=1, help="of what is asked for (%(default)s)")
        part.add_argument("--keep", action="store_true", help="leave the users for the next run")
        part.add_argument("--output", metavar="DIR", type=Path, help="write DIR/PART.json too")
        part.add_argument("--json", action="store_true", help="print JSON instead of a table")
        _stores.add_option(part)
    page = parts.add_parser("report", help="write docs/benchmarks.md and its plots", allow_abbrev=False)
    report.add_arguments(page, _venv.ROOT)
    return parser.parse_args()


def _run(options: argparse.Namespace) -> int:
    if options.part == "report":
        print(report.run(options))
        return _OK
    with ExitStack() as stack:
        if options.part == "http" and options.url:
            result: Any = over_http.run_elsewhere(options)
        else:
            database_url, redis_url = stack.enter_context(_stores.chosen(options.data, make=True))
            result = _PARTS[options.part].run(options, database_url, redis_url)
    encoded = msgspec.json.encode(result)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / f"{options.part}.json").write_bytes(msgspec.json.format(encoded) + b"\n")
    print(encoded.decode() if options.json else tables.of(result), end="\n" if options.json else "")
    return _SOME_FAILED if tables.failed(result) else _OK


if __name__ == "__main__":
    sys.exit(main())
