"""
`benchmark.py write`: durable ratings a second, and how far the mirror is behind while they are written.

Every write is committed with fsync before it is answered. Meanwhile some users are watched: how far the mirror says it
lags, when Redis has a rating that was just acknowledged, and when it has one that was written past the service, in SQL.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import redis

from service.arguments import Unusable
from service.model import MAX_RATING, MIN_RATING
from service.progress import progress
from service.store.keys import BoardKeys

from . import load, servers
from .environment import describe
from .kinds import ratings
from .results import Delay, Operation, Sample, Seen, WriteResult
from .sessions import session
from .stores import prepared

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    import psycopg

WATCHED = 200
"""Users whom nobody else writes."""
_BULK = 100
_BULK_LINES = 5_000
_BULK_CONNECTIONS = 8
_PAUSE_SECONDS = 0.02
_GIVEN_UP_SECONDS = 20.0


def run(options: argparse.Namespace, database_url: str, redis_url: str) -> WriteResult:
    """Measure over the stores of these servers."""
    generator = load.find(options.generator)
    try:
        connections = [int(word) for word in options.connections.split(",")]
    except ValueError:
        message = f"--connections takes whole numbers, separated by commas, not {options.connections!r}"
        raise Unusable(message) from None
    source = random.Random(options.seed)  # noqa: S311  the same requests every time
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ladder-benchmark-")))
        stores = stack.enter_context(prepared(database_url, redis_url, options.users, keep=options.keep))
        server = stack.enter_context(
            servers.service(stores.database_url, stores.redis_url, folder, workers=options.workers)
        )
        ids = stores.ids()
        source.shuffle(ids)
        watched, written = ids[:WATCHED], ids[WATCHED:]
        if len(written) < WATCHED:
            message = f"--users must be at least {2 * WATCHED}"
            raise Unusable(message)
        one = load.write_requests(folder / "put.txt", ratings(written, source))
        bulk = load.write_requests(folder / "bulk.txt", _bulk(written, source))
        result = WriteResult(
            environment=describe(stores.database_url, stores.redis_url),
            users=options.users,
            workers=options.workers,
            seconds=options.seconds,
            seed=options.seed,
            fsync=_setting(stores.database_url, "fsync"),
            synchronous_commit=_setting(stores.database_url, "synchronous_commit"),
        )
        wanted = [(f"PUT /users/{{id}}/rating, {count} at a time", one, count, 1) for count in connections]
        wanted.append(
            (f"PUT /ratings, {_BULK} in a request, {_BULK_CONNECTIONS} at a time", bulk, _BULK_CONNECTIONS, _BULK)
        )
        with progress("Measured", len(wanted)) as report:
            for done, (title, requests, count, batch) in enumerate(wanted, start=1):
                watch = _Watch(server.url, stores.database_url, stores.redis_url, watched, source)
                operation = Operation(title.partition(",")[0], title, count, generator.name, batch=batch)

                def drive(requests: Path = requests, count: int = count) -> Sample:
                    skip = source.randrange(options.users)
                    return generator.run(server.url, requests, connections=count, seconds=options.seconds, skip=skip)

                operation.samples.append(watch.while_running(drive))
                operation.delays = watch.delays()
                result.operations.append(operation)
                report(done, f"{title}: {operation.per_second():,.0f} ratings/s")
    return result


def _bulk(ids: Sequence[str], source: random.Random) -> list[str]:
    lines = []
    for _ in range(_BULK_LINES):
        updates = [
            {"id": user_id, "rating": source.randint(MIN_RATING, MAX_RATING)}
            for user_id in source.sample(ids, min(_BULK, len(ids)))
        ]
        lines.append(f"PUT /ratings\t{msgspec.json.encode({'updates': updates}).decode()}")
    return lines


def _setting(database_url: str, name: str) -> str:
    with session(database_url) as connection:
        row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    return str(row[0]) if row else ""


class _Watch:
    """Looks at some users while others are written."""

    def __init__(self, url: str, database_url: str, redis_url: str, ids: Sequence[str], source: random.Random) -> None:
        self._url = url
        self._database_url, self._redis_url = database_url, redis_url
        self._ids = ids
        self._source = source
        self._key = BoardKeys.of("ladder").users
        self._seconds: dict[Seen, list[float]] = {"lag": [], "acknowledged": [], "past": []}

    def while_running(self, drive: Callable[[], Sample]) -> Sample:
        """Watch until the load is over, and return what it measured. Raises what the load raises."""
        found: list[Sample | BaseException] = []

        def run() -> None:
            try:
                found.append(drive())
            except BaseException as error:  # noqa: BLE001  raised again in the thread that waits
                found.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        with (
            session(self._database_url, autocommit=True) as connection,
            redis.Redis.from_url(self._redis_url) as client,
        ):
            while thread.is_alive():
                self._look(connection, client)
                thread.join(_PAUSE_SECONDS)
        (outcome,) = found
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def delays(self) -> list[Delay]:
        """What was seen."""
        return [Delay(name, Sample.of(seconds, seconds=1.0)) for name, seconds in self._seconds.items()]

    def _look(self, connection: psycopg.Connection, client: redis.Redis) -> None:
        one, other = self._source.sample(self._ids, 2)
        rating = self._source.randint(MIN_RATING, MAX_RATING)
        answer = servers.ask(self._url, f"GET /users/{one}/rank")
        if "x-mirror-lag-ms" in answer.headers:
            self._seconds["lag"].append(int(answer.headers["x-mirror-lag-ms"]) / 1000)
        answer = servers.ask(self._url, f"PUT /users/{one}/rating", f'{{"rating":{rating}}}')
        version = int(answer.headers.get("etag", '"v0"').strip('"').removeprefix("v"))
        self._seconds["acknowledged"].append(self._until(client, one, version))
        row = connection.execute(
            "UPDATE users SET rating = %s WHERE id = %s RETURNING version", [rating, other]
        ).fetchone()
        self._seconds["past"].append(self._until(client, other, row[0] if row else 0))

    def _until(self, client: redis.Redis, user_id: str, version: int) -> float:
        """Return after how many seconds the mirror has that version, 0 if it has it at once."""
        began = time.perf_counter()
        looked = False
        while time.perf_counter() - began < _GIVEN_UP_SECONDS:
            held = client.hget(self._key, user_id)
            if isinstance(held, bytes) and int(held.partition(b"|")[0]) >= version:
                return time.perf_counter() - began if looked else 0.0
            looked = True
            time.sleep(0.001)
        return _GIVEN_UP_SECONDS
