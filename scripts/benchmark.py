#!/usr/bin/env python3
"""
Measure Ladder on this machine: what a rank costs, and how many requests a second the service answers.

  http     requests a second and latency of the running service, beside a bare handler of the same server

Everything happens in a database of its own (ladder_benchmark_N) and in Redis database 9, which must be empty.
"""

from __future__ import annotations

import _venv

# isort: split
import argparse
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import msgspec
import psycopg
import redis
from _benchmark import over_http, tables
from _benchmark.load import GeneratorFailed
from _benchmark.servers import ServiceFailed
from _benchmark.stores import Unusable

from service.embedded import EmbeddedError, open_pair
from service.errors import LadderError, OutcomeUnknown, Unavailable
from service.logs import configure
from service.settings import Settings, SettingsError

_EPILOG = """\
The servers are those that DATABASE_URL and REDIS_URL name; with --data, or when neither is set, the embedded pair
over that directory, which is started meanwhile if it does not run.

exit codes:
  0    measured
  1    something failed that should not have
  2    wrong arguments or variables, or something is missing here
  3    measured, but some requests failed
  5    a store is unavailable
  130  interrupted
"""
_OK, _FAILED, _WRONG, _SOME_FAILED, _AWAY, _INTERRUPTED = 0, 1, 2, 3, 5, 130
_PARTS = {"http": over_http}


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


def _blame(error: object, code: int) -> int:
    print(f"benchmark.py: {str(error).rstrip('.')}.", file=sys.stderr)
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
        part.add_argument(
            "--data", metavar="DIR", type=Path, help="use the embedded pair over this directory (.ladder)"
        )
    return parser.parse_args()


def _run(options: argparse.Namespace) -> int:
    with ExitStack() as stack:
        database_url, redis_url = _stores(options, stack)
        result = _PARTS[options.part].run(options, database_url, redis_url)
    encoded = msgspec.json.encode(result)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / f"{options.part}.json").write_bytes(msgspec.json.format(encoded) + b"\n")
    print(encoded.decode() if options.json else tables.http(result), end="\n" if options.json else "")
    return _SOME_FAILED if any(operation.failed() for operation in result.operations) else _OK


def _stores(options: argparse.Namespace, stack: ExitStack) -> tuple[str, str]:
    variables = {name: os.environ.get(name, "") for name in ("DATABASE_URL", "REDIS_URL")}
    if options.data is None and any(variables.values()):
        settings = Settings.from_env(variables)
        return settings.database_url, settings.redis_url
    pair = stack.enter_context(open_pair(options.data or _venv.ROOT / ".ladder"))
    return pair.database_url, pair.redis_url


if __name__ == "__main__":
    sys.exit(main())
