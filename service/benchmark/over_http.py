"""
`benchmark.py http`: what the running service answers, with every middleware on, and what a bare handler would.

The rate limit counts every request and refuses none. Ids and offsets are asked at random, no id twice in one stretch
of load, so no cache of ours knows them. Service and bare handler take turns, and who begins changes by round.
"""

from __future__ import annotations

import http.client
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from service.arguments import Unusable
from service.arguments.benchmark import OPERATIONS
from service.progress import progress

from . import load, servers
from .environment import describe, describe_here
from .kinds import KINDS
from .results import HttpResult, Operation
from .stores import prepared

if TYPE_CHECKING:
    import argparse

    from service.progress import Report

    from .load import Generator
    from .results import Environment, Sample
    from .servers import Server
    from .stores import Stores

WARM_UP_SECONDS = 1.0
_MOST_LINES = 1_000_000
_AB = "page-100-ab"


def run(options: argparse.Namespace, database_url: str, redis_url: str) -> HttpResult:
    """Measure a service over stores in these servers. Raises `Unusable` or `ServiceFailed`."""
    _wanted(options)
    generator = load.find(options.generator)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ladder-benchmark-")))
        stores: Stores = stack.enter_context(prepared(database_url, redis_url, options.users, keep=options.keep))
        environment = describe(stores.database_url, stores.redis_url)
        server = stack.enter_context(
            servers.service(stores.database_url, stores.redis_url, folder, workers=options.workers)
        )
        measuring = _Measuring(options, folder, generator, stores.ids())
        bodies = measuring.bodies(server.url)
        bare = None
        if bodies and not options.no_bare:
            bare = stack.enter_context(servers.ceiling(bodies, folder, workers=options.workers))
        operations = measuring.run(server.url, bare)
    return _result(
        options,
        environment,
        operations,
        users=options.users,
        workers=options.workers,
        missing=measuring.missing,
    )


def run_elsewhere(options: argparse.Namespace) -> HttpResult:
    """
    Measure the service behind --url, with the users that it has; its ratings are changed only if that is asked for.

    Raises `Unusable` or `ServiceFailed`.
    """
    _wanted(options)
    generator = load.find(options.generator)
    url = options.url.rstrip("/")
    with tempfile.TemporaryDirectory(prefix="ladder-benchmark-") as folder:
        ids = _everybody(url, options.users)
        measuring = _Measuring(options, Path(folder), generator, ids)
        measuring.bodies(url)
        operations = measuring.run(url, None)
    missing = ["The service ran before, so there was no bare handler beside it.", *measuring.missing]
    return _result(options, describe_here(), operations, users=len(ids), workers=0, missing=missing)


def _result(
    options: argparse.Namespace,
    environment: Environment,
    operations: list[Operation],
    *,
    users: int,
    workers: int,
    missing: list[str],
) -> HttpResult:
    return HttpResult(
        environment=environment,
        users=users,
        workers=workers,
        seconds=options.seconds,
        rounds=options.rounds,
        seed=options.seed,
        operations=operations,
        missing=missing,
    )


def _everybody(url: str, most: int) -> list[str]:
    """Ask for the ids of the first users of the board, page by page."""
    ids: list[str] = []
    target = "/leaderboard?limit=1000"
    with progress("Users", most) as report:
        while target and len(ids) < most:
            answer = servers.ask(url, f"GET {target}")
            if answer.status != http.client.OK:
                message = f"{target} was answered {answer.status}: is the rate limit of that service out of the way"
                raise servers.ServiceFailed(message)
            page = msgspec.json.decode(answer.body, type=_Page)
            ids += (row["id"] for row in page.items)
            report(len(ids), f"{len(ids):,} users")
            target = f"/leaderboard?limit=1000&cursor={page.next_cursor}" if page.next_cursor else ""
    if not ids:
        message = f"{url} has no users"
        raise Unusable(message)
    return ids[:most]


class _Page(msgspec.Struct):
    items: list[dict[str, Any]]
    next_cursor: str | None


def _wanted(options: argparse.Namespace) -> list[str]:
    wanted = options.only.split(",") if options.only else list(OPERATIONS)
    if unknown := set(wanted) - set(OPERATIONS):
        message = f"--only knows no {', '.join(sorted(unknown))}"
        raise Unusable(message)
    if options.url and not options.writes:
        wanted = [name for name in wanted if name == _AB or not KINDS[name].writes]
    return wanted


class _Measuring:
    """One run: which operations, with which requests."""

    def __init__(self, options: argparse.Namespace, folder: Path, generator: Generator, ids: list[str]) -> None:
        self._options = options
        self._generator = generator
        self._source = random.Random(options.seed)  # noqa: S311  the same requests every time
        self._source.shuffle(ids)
        wanted = _wanted(options)
        self._ab = _AB in wanted
        self._kinds = {name: kind for name, kind in KINDS.items() if name in wanted}
        self._requests = {
            name: load.write_requests(folder / f"{name}.txt", kind.lines(ids[:_MOST_LINES], self._source))
            for name, kind in self._kinds.items()
        }
        self._folder = folder
        self.missing: list[str] = []
        """What was not measured, or not by what was wanted, and why."""
        if not generator.program:
            self.missing.append("The load came from a generator of our own, which takes more of the machine than wrk.")

    def bodies(self, url: str) -> dict[str, bytes]:
        """Ask each read once: what the bare handler is to return. Raises `ServiceFailed` for anything but a rank."""
        found = {}
        for name, kind in self._kinds.items():
            if kind.writes:
                continue
            with self._requests[name].open(encoding="ascii") as lines:
                head, _, body = lines.readline().strip().partition("\t")
            answer = servers.ask(url, head, body)
            if answer.status != http.client.OK or answer.headers.get("x-rank-source") != "redis":
                message = f"{head} was answered {answer.status}, not ranked by Redis"
                raise servers.ServiceFailed(message)
            if kind.bare:
                found[name] = answer.body
        return found

    def run(self, url: str, bare: Server | None) -> list[Operation]:
        """Measure all reads, round by round, then the writes: they leave work behind."""
        done = {
            name: Operation(name, kind.title, kind.connections or self._options.connections, self._generator.name)
            for name, kind in self._kinds.items()
        }
        reads = [name for name, kind in self._kinds.items() if not kind.writes]
        writes = [name for name, kind in self._kinds.items() if kind.writes]
        steps = self._options.rounds * (len(reads) * (2 if bare else 1) + len(writes))
        with progress("Measured", steps) as report:
            told = _Steps(report)
            for phase in (reads, writes):
                for name in phase:
                    self._turn(done[name], url, bare, 0, seconds=WARM_UP_SECONDS)
                    done[name].samples.clear()
                    done[name].bare.clear()
                    done[name].elsewhere = 0
                for number in range(self._options.rounds):
                    for name in phase if number % 2 == 0 else reversed(phase):
                        self._turn(done[name], url, bare, number, seconds=self._options.seconds, told=told)
                if phase is reads and self._ab:
                    self._by_ab(done, url)
        return list(done.values())

    def _turn(
        self,
        operation: Operation,
        url: str,
        bare: Server | None,
        number: int,
        *,
        seconds: float,
        told: _Steps | None = None,
    ) -> None:
        turns = [(operation.samples, url, self._requests[operation.name])]
        if bare and self._kinds[operation.name].bare:
            constant = load.write_requests(self._folder / "bare.txt", [f"GET /{operation.name}"])
            turns.append((operation.bare, bare.url, constant))
        before = servers.ranked_elsewhere(url)
        for samples, where, requests in turns if number % 2 == 0 else reversed(turns):
            samples.append(self._load(operation, where, requests, seconds))
            if told:
                told(f"{operation.name}: {samples[-1].per_second:,.0f}/s")
        operation.elsewhere += servers.ranked_elsewhere(url) - before

    def _load(self, operation: Operation, url: str, requests: Path, seconds: float) -> Sample:
        return self._generator.run(
            url,
            requests,
            connections=operation.connections,
            seconds=seconds,
            skip=self._source.randrange(_MOST_LINES),
        )

    def _by_ab(self, done: dict[str, Operation], url: str) -> None:
        title = "GET /leaderboard?limit=100 by ab -n 10000 -c 100, a connection a request"
        operation = Operation(_AB, title, 100, "ab")
        for _ in range(self._options.rounds):
            sample = load.apache_bench(f"{url}/leaderboard?limit=100", requests=10_000, connections=100)
            if sample is None:
                self.missing.append("ab is not installed here, so nothing was measured by it.")
                return
            operation.samples.append(sample)
        done[_AB] = operation


class _Steps:
    """Counts what is through."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._done = 0

    def __call__(self, words: str) -> None:
        self._done += 1
        self._report(self._done, words)
