"""
`benchmark.py http`: what the running service answers, with every middleware on, and what a bare handler would.

The rate limit counts every request and refuses none. Ids and offsets are asked at random, each id once before any
comes again, so no cache of ours knows them. Service and bare handler take turns, and who begins changes by round.
"""

from __future__ import annotations

import http.client
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from service.model import MAX_RATING, MIN_RATING
from service.progress import progress
from service.settings import cores

from . import load, servers
from .environment import describe
from .results import HttpResult, Operation
from .stores import Unusable, prepared

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from service.progress import Report

    from .load import Generator, Requests
    from .results import Sample
    from .servers import Server
    from .stores import Stores

WARM_UP_SECONDS = 1.0
_MOST_LINES = 1_000_000
_LISTS = 2_000
_AB = "page-100-ab"


class Kind(msgspec.Struct, frozen=True):
    """An operation: how its requests are made of the users' ids, and on how many connections they are sent."""

    title: str
    method: str
    lines: Callable[[Sequence[str], random.Random], list[str]]
    connections: int | None = None
    bare: bool = True
    writes: bool = False


def _offsets(ids: Sequence[str], source: random.Random) -> list[str]:
    return [f"/leaderboard?limit=25&offset={source.randrange(max(len(ids) - 24, 1))}" for _ in range(100_000)]


def _lists(ids: Sequence[str], source: random.Random) -> list[str]:
    return [
        f"/ranks\t{msgspec.json.encode({'user_ids': source.sample(ids, min(100, len(ids)))}).decode()}"
        for _ in range(_LISTS)
    ]


def _ratings(ids: Sequence[str], source: random.Random) -> list[str]:
    # Spread as the made-up users' are, so that the board keeps its shape.
    spread = (min(max(round(source.gauss(1500, 300)), MIN_RATING), MAX_RATING) for _ in ids)
    return [f'/users/{user_id}/rating\t{{"rating":{rating}}}' for user_id, rating in zip(ids, spread, strict=True)]


KINDS = {
    "rank": Kind("GET /users/{id}/rank", "GET", lambda ids, _: [f"/users/{user_id}/rank" for user_id in ids]),
    "user": Kind("GET /users/{id}", "GET", lambda ids, _: [f"/users/{user_id}" for user_id in ids]),
    "page-25": Kind("GET /leaderboard?limit=25, random offsets", "GET", _offsets),
    "page-100": Kind("GET /leaderboard?limit=100, the same page", "GET", lambda _, __: ["/leaderboard?limit=100"]),
    "neighbors": Kind(
        "GET /users/{id}/neighbors?radius=12",
        "GET",
        lambda ids, _: [f"/users/{user_id}/neighbors?radius=12" for user_id in ids],
    ),
    "ranks-100": Kind("POST /ranks, 100 ids, one connection", "POST", _lists, connections=1),
    "put": Kind("PUT /users/{id}/rating, durable", "PUT", _ratings, bare=False, writes=True),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this part can be told."""
    parser.add_argument("--users", metavar="N", type=int, default=1_000_000, help="users on the board (%(default)s)")
    parser.add_argument("--connections", metavar="N", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--seconds", metavar="S", type=float, default=5, help="of load, a round (%(default)s)")
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--workers", metavar="N", type=int, default=cores(), help="processes that serve (one per core)")
    parser.add_argument("--only", metavar="NAMES", help=f"of {', '.join([*KINDS, _AB])}, separated by commas")
    parser.add_argument("--no-bare", action="store_true", help="leave the bare handler out")
    parser.add_argument("--generator", choices=("auto", "wrk", "built-in"), default="auto", help="what makes the load")


def run(options: argparse.Namespace, database_url: str, redis_url: str) -> HttpResult:
    """Measure over the stores of these servers."""
    generator = load.find(options.generator)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ladder-benchmark-")))
        stores: Stores = stack.enter_context(prepared(database_url, redis_url, options.users, keep=options.keep))
        environment = describe(stores.database_url, stores.redis_url)
        server = stack.enter_context(
            servers.service(stores.database_url, stores.redis_url, folder, workers=options.workers)
        )
        ids = stores.ids()
        measured = _Measuring(options, folder, generator, ids)
        bodies = {} if options.no_bare else measured.bodies(server.url)
        bare = stack.enter_context(servers.ceiling(bodies, folder, workers=options.workers)) if bodies else None
        operations = measured.run(server.url, bare)
    return HttpResult(
        environment=environment,
        users=options.users,
        workers=options.workers,
        seconds=options.seconds,
        rounds=options.rounds,
        seed=options.seed,
        operations=operations,
    )


class _Measuring:
    """One run: which operations, with which requests."""

    def __init__(self, options: argparse.Namespace, folder: Path, generator: Generator, ids: list[str]) -> None:
        self._options = options
        self._generator = generator
        self._source = random.Random(options.seed)  # noqa: S311  the same requests every time
        self._source.shuffle(ids)
        wanted = options.only.split(",") if options.only else [*KINDS, _AB]
        if unknown := set(wanted) - {*KINDS, _AB}:
            message = f"--only knows no {', '.join(sorted(unknown))}"
            raise Unusable(message)
        self._ab = _AB in wanted
        self._kinds = {name: kind for name, kind in KINDS.items() if name in wanted}
        self._requests = {
            name: load.Requests.write(folder / f"{name}.txt", kind.method, kind.lines(ids[:_MOST_LINES], self._source))
            for name, kind in self._kinds.items()
        }
        self._folder = folder

    def bodies(self, url: str) -> dict[str, bytes]:
        """Ask each read once: what the bare handler is to return. Raises `ServiceFailed` for anything but a rank."""
        found = {}
        for name, kind in self._kinds.items():
            with self._requests[name].file.open(encoding="ascii") as lines:
                target, _, body = lines.readline().strip().partition("\t")
            if kind.writes:
                continue
            answer = servers.ask(url, kind.method, target, body)
            if answer.status != http.client.OK or answer.headers.get("x-rank-source") != "redis":
                message = f"{kind.method} {target} was answered {answer.status}, not ranked by Redis"
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
                    self._measure(done[name], url, WARM_UP_SECONDS)
                for number in range(self._options.rounds):
                    for name in phase if number % 2 == 0 else reversed(phase):
                        self._turn(done[name], url, bare, number, told)
                if phase is reads and self._ab:
                    self._by_ab(done, url)
        return list(done.values())

    def _turn(self, operation: Operation, url: str, bare: Server | None, number: int, told: _Steps) -> None:
        turns = [(operation.samples, url, self._requests[operation.name])]
        if bare and self._kinds[operation.name].bare:
            constant = load.Requests.write(self._folder / "bare.txt", "GET", [f"/{operation.name}"])
            turns.append((operation.bare, bare.url, constant))
        for samples, where, requests in turns if number % 2 == 0 else reversed(turns):
            samples.append(self._load(operation, where, requests, self._options.seconds))
            told(f"{operation.name}: {samples[-1].per_second:,.0f}/s")

    def _measure(self, operation: Operation, url: str, seconds: float) -> None:
        self._load(operation, url, self._requests[operation.name], seconds)

    def _load(self, operation: Operation, url: str, requests: Requests, seconds: float) -> Sample:
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
