"""`ladder benchmark`: measure Ladder on this machine, and write the page of what was measured."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import msgspec
import psycopg
import redis

from service.arguments import Unusable
from service.benchmark import over_http, rank, report, soak, tables, writes
from service.benchmark.load import GeneratorFailed
from service.benchmark.servers import ServiceFailed
from service.commands import stores
from service.cpus import usable_cpus
from service.embedded import EmbeddedError
from service.errors import LadderError, Misconfigured, OutcomeUnknown, Unavailable, as_sentence, explain
from service.logs import configure
from service.settings import SettingsError


class Part(Protocol):
    """A module that measures something."""

    def run(self, options: argparse.Namespace, database_url: str, redis_url: str) -> Any:
        """Measure over databases of its own in these servers."""


_OK, _FAILED, _WRONG, _SOME_FAILED, _AWAY, _INTERRUPTED = 0, 1, 2, 3, 5, 130
_PARTS: dict[str, Part] = {"rank": rank, "http": over_http, "write": writes, "soak": soak}


def run(options: argparse.Namespace) -> int:
    """Measure and report; returns the exit code."""
    if "workers" in options and options.workers is None:
        options.workers = usable_cpus()
    configure("warning")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(options)
    except KeyboardInterrupt:
        return _blame(options, "Interrupted", _INTERRUPTED)
    except (Unusable, SettingsError, Misconfigured, GeneratorFailed) as error:
        return _blame(options, error, _WRONG)
    except (Unavailable, OutcomeUnknown, EmbeddedError, psycopg.OperationalError, redis.ConnectionError) as error:
        return _blame(options, error, _AWAY)
    except (LadderError, ServiceFailed, OSError, psycopg.Error, redis.RedisError) as error:
        return _blame(options, error, _FAILED)


def _blame(options: argparse.Namespace, error: BaseException | str, code: int) -> int:
    said = error if isinstance(error, str) else explain(error)
    print(as_sentence(f"{options.program}: {said.strip()}"), file=sys.stderr)
    return code


def _run(options: argparse.Namespace) -> int:
    if options.part == "report":
        # Beside the page on standard output it would be a line of the page.
        print(report.run(options, sys.stdout), file=sys.stderr if options.page == "-" else sys.stdout)
        return _OK
    directory = _directory(options)
    with ExitStack() as stack:
        if options.part == "http" and options.url:
            result: Any = over_http.run_elsewhere(options)
        else:
            database_url, redis_url = stack.enter_context(stores.chosen(options.data, make=True))
            result = _PARTS[options.part].run(options, database_url, redis_url)
    encoded = msgspec.json.encode(result)
    if directory:
        (directory / f"{options.part}.json").write_bytes(msgspec.json.format(encoded) + b"\n")
    print(encoded.decode() if options.json else tables.of(result), end="\n" if options.json else "")
    return _SOME_FAILED if tables.failed(result) else _OK


def _directory(options: argparse.Namespace) -> Path | None:
    """Make the directory that --output names, rather now than after an hour of measuring."""
    if options.output == "-":
        options.json = True
    if options.output in (None, "-"):
        return None
    directory = Path(options.output)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{directory} cannot be written: {error.strerror}"
        raise Unusable(message) from error
    return directory
