"""
What the service counts of itself, for Prometheus: every metric, by name, and how they are written out.

A request pays for the metrics, so what it counts is found by one look-up and is a few microseconds in all. Labels come
from closed sets: route templates, names in our own code, HTTP's words; never an id, an address or a path.
"""

from __future__ import annotations

import asyncio
import time
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, values
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.process_collector import ProcessCollector

from service import worker_slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

# Chosen once, before the first metric below.
if worker_slots.place() is not None:
    values.ValueClass = worker_slots.Cell
disable_created_metrics()

REGISTRY = CollectorRegistry()
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
NO_ROUTE = "none"
"""The route of a request that was refused before it had one: an unknown address or method, a limit."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
PUBLISH_SECONDS = 0.5
"""How often a worker publishes what it does not count as it happens: its pools, the delay of its event loop."""


def _counter(name: str, help_text: str, *labels: str) -> Counter:
    return Counter(name, help_text, labels, registry=REGISTRY)


def _sum(name: str, help_text: str, *labels: str) -> Gauge:
    return Gauge(name, help_text, labels, registry=REGISTRY, multiprocess_mode="livesum")


def _histogram(name: str, help_text: str, *labels: str, buckets: Sequence[float] = _SECONDS) -> Histogram:
    return Histogram(name, help_text, labels, registry=REGISTRY, buckets=buckets)


# Requests

REQUESTS = _counter("ladder_http_requests_total", "Answers, by route template.", "route", "method", "status")
REQUEST_SECONDS = _histogram("ladder_http_request_duration_seconds", "Until the answer began, by route.", "route")
IN_FLIGHT = _sum("ladder_http_requests_in_flight", "Requests being answered, open streams aside.")
RATE_LIMITED = _counter("ladder_rate_limited_total", "Requests refused because their client asks too often.")
SHED = _counter("ladder_shed_total", "Requests refused because the service was asked more than it can answer.")

# Streams

STREAMS = _sum("ladder_streams_open", "Streams of the leaderboard that are open.")
STREAM_EVENTS = _counter("ladder_stream_events_total", "Pages sent over streams, once for each listener.")
STREAMS_CUT = _counter("ladder_streams_cut_total", "Streams ended because their client did not receive what was sent.")

# Ranks

RANK_ANSWERS = _counter("ladder_rank_answers_total", "Answers with ranks, by what ranked.", "source")
STALE_ANSWERS = _counter("ladder_stale_answers_total", "Answers marked as older than is promised.")
OBJECT_LOOKUPS = _counter("ladder_object_cache_lookups_total", "Users looked for in the object cache.", "result")
OBJECT_HITS, OBJECT_MISSES = OBJECT_LOOKUPS.labels("hit"), OBJECT_LOOKUPS.labels("miss")
MIRROR_WRITES = _counter("ladder_mirror_writes_total", "Committed writes, by what the mirror made of them.", "outcome")
BATCH_SIZE = _histogram("ladder_batch_size", "Calls in one batch, by what gathers them.", "name", buckets=_SIZES)
BREAKER = Gauge(
    "ladder_breaker_state",
    "The worst of any worker: 0 closed, 1 trying again, 2 open.",
    ["store"],
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
_BREAKER_STATES = {"closed": 0, "half-open": 1, "open": 2}

# The tailer

TAIL_LEADING = _sum("ladder_tail_leading", "Workers of this service that feed the mirror.")
TAIL_CYCLES = _counter("ladder_tail_cycles_total", "Times that the mirror was brought up to date.")
TAIL_ROWS = _counter("ladder_tail_rows_applied_total", "Changes that a write had not carried over itself.")
TAIL_REFUSED = _counter("ladder_tail_refused_total", "Batches that the mirror refused: it fell back, or was fed twice.")
LOADS_BEGUN = _counter("ladder_mirror_loads_begun_total", "Boards that were started anew.")
LOADS_FINISHED = _counter("ladder_mirror_loads_finished_total", "Loads of the board that reached the end.")

# The continuous check

SAMPLES = _counter("ladder_consistency_samples_total", "Users compared as they were served, by outcome.", "outcome")
MISMATCHES = _counter("ladder_consistency_mismatches_total", "Those that still differed after seconds.", "horizon")

# Stores

_REDIS_SECONDS = _histogram("ladder_redis_call_duration_seconds", "Round trips to Redis, by their first.", "operation")
_REDIS_ERRORS = _counter("ladder_redis_errors_total", "Round trips to Redis that failed.", "operation")
_POSTGRES_SECONDS = _histogram(
    "ladder_postgres_call_duration_seconds", "Statements, waiting for a connection included.", "operation"
)
_POSTGRES_ERRORS = _counter("ladder_postgres_errors_total", "Statements that failed.", "operation")
POOL_CONNECTIONS = _sum("ladder_pool_connections", "Connections to Postgres.", "pool")
POOL_IDLE = _sum("ladder_pool_idle_connections", "Connections to Postgres that nobody uses.", "pool")
POOL_WAITING = _sum("ladder_pool_waiting", "Callers who wait for a connection.", "pool")
POOL_REQUESTS = _counter("ladder_pool_requests_total", "Connections asked for.", "pool")
POOL_QUEUED = _counter("ladder_pool_queued_total", "Connections that had to be waited for.", "pool")
POOL_WAIT_SECONDS = _counter("ladder_pool_wait_seconds_total", "Time spent waiting for connections.", "pool")
POOL_ERRORS = _counter("ladder_pool_errors_total", "Connections that were not had in time.", "pool")

# The process

LOOP_DELAY = _histogram("ladder_event_loop_delay_seconds", "How late the event loop is for a timer, twice a second.")

# Known from the start: a counter that appears with its first event hides that event from rate().
for _source in ("redis", "postgres", "histogram"):
    RANK_ANSWERS.labels(_source)
for _outcome in ("applied", "superseded", "pending"):
    MIRROR_WRITES.labels(_outcome)
for _outcome in ("agreed", "differed", "dropped", "unknown"):
    SAMPLES.labels(_outcome)
for _horizon in (1, 10, 60):
    MISMATCHES.labels(_horizon)


@cache
def _answer(route: str, method: str, status: str) -> tuple[Callable[[], None], Callable[[float], None]]:
    return REQUESTS.labels(route, method, status).inc, REQUEST_SECONDS.labels(route).observe


def answered(route: str | None, method: str, status: int, seconds: float) -> None:
    """
    Count an answer as it begins: whoever has received it finds it counted, whichever worker is asked.

    `route` is the template, such as /users/{user_id}; 0 is the `status` of a request that was given up.
    """
    count, observe = _answer(
        route or NO_ROUTE, method if method in _METHODS else "other", str(status) if status else "none"
    )
    count()
    observe(seconds)


def stream_opened() -> None:
    """Count a request that has turned into a stream: among those, and no longer among the requests in flight."""
    STREAMS.inc()
    IN_FLIGHT.dec()


def stream_ended() -> None:
    """Count it back: its request is about to end."""
    STREAMS.dec()
    IN_FLIGHT.inc()


def ranked(source: str, *, stale: bool) -> None:
    """Count an answer that carries ranks."""
    _source_counter(source)()
    if stale:
        STALE_ANSWERS.inc()


@cache
def _source_counter(source: str) -> Callable[[], None]:
    return RANK_ANSWERS.labels(source).inc


def looked_up(users: int, *, found: int) -> None:
    """Count users, and of how many of them the cached object was there."""
    OBJECT_HITS.inc(found)
    if found < users:
        OBJECT_MISSES.inc(users - found)


def written(outcomes: Iterable[str]) -> None:
    """Count committed writes by what the mirror made of them."""
    for outcome in outcomes:
        MIRROR_WRITES.labels(outcome).inc()


def breaker_turned(store: str, state: str) -> None:
    """Publish the state of this process's breaker before a store."""
    BREAKER.labels(store.lower()).set(_BREAKER_STATES[state])


class Timing:
    """Measures the block, and counts it as failed if an error leaves it."""

    __slots__ = ("_begun", "_failed", "_observe")

    def __init__(self, observe: Callable[[float], None], failed: Callable[[], None]) -> None:
        self._observe, self._failed = observe, failed
        self._begun = 0.0

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._observe(time.perf_counter() - self._begun)
        if isinstance(error, Exception):
            self._failed()


@cache
def _redis(operation: str) -> tuple[Callable[[float], None], Callable[[], None]]:
    return _REDIS_SECONDS.labels(operation).observe, _REDIS_ERRORS.labels(operation).inc


def redis_call(operation: str) -> Timing:
    """Measure a round trip; `operation` is a script's or a command's name."""
    return Timing(*_redis(operation))


@cache
def _postgres(operation: str) -> tuple[Callable[[float], None], Callable[[], None]]:
    return _POSTGRES_SECONDS.labels(operation).observe, _POSTGRES_ERRORS.labels(operation).inc


def postgres_call(operation: str) -> Timing:
    """Measure a statement; `operation` is its name in `queries.sql`."""
    return Timing(*_postgres(operation))


def pool_used(name: str, stats: Mapping[str, int]) -> None:
    """Publish what psycopg's pool says of itself, counted since it was last asked."""
    POOL_CONNECTIONS.labels(name).set(stats["pool_size"])
    POOL_IDLE.labels(name).set(stats["pool_available"])
    POOL_WAITING.labels(name).set(stats["requests_waiting"])
    POOL_REQUESTS.labels(name).inc(stats.get("requests_num", 0))
    POOL_QUEUED.labels(name).inc(stats.get("requests_queued", 0))
    POOL_WAIT_SECONDS.labels(name).inc(stats.get("requests_wait_ms", 0) / 1000)
    POOL_ERRORS.labels(name).inc(stats.get("requests_errors", 0))


async def publish(measure: Callable[[], None]) -> None:
    """Call `measure` now and then, and watch how late the event loop is; for ever, end it by cancelling."""
    loop = asyncio.get_running_loop()
    while True:
        measure()
        due = loop.time() + PUBLISH_SECONDS
        await asyncio.sleep(PUBLISH_SECONDS)
        LOOP_DELAY.observe(max(loop.time() - due, 0))


class _Everything:
    """What all workers counted, how their processes are, and what is known only now."""

    def __init__(self, present: Iterable[Metric]) -> None:
        self._present = present

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        alive = worker_slots.living()
        place = worker_slots.place()
        counted = {metric.name: metric for metric in REGISTRY.collect()}
        if place is not None:
            # What nobody has counted yet is in no file; named all the same, it can be found.
            counted = {name: Metric(name, metric.documentation, metric.type) for name, metric in counted.items()}
            collector = MultiProcessCollector(None, path=str(place))
            counted |= {metric.name: metric for metric in collector.collect()}
        yield from counted.values()
        yield from _processes(alive or {"0": "self"})
        yield from self._present


def _processes(ids: Mapping[str, int | str]) -> Iterable[Metric]:
    """Return Prometheus' usual metrics of a process, for each worker."""
    families: dict[str, Metric] = {}
    for worker, process in ids.items():
        for metric in ProcessCollector(pid=partial(str, process), registry=None).collect():
            family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            for sample in metric.samples:
                family.add_sample(sample.name, {**sample.labels, "worker": worker}, sample.value)
    return families.values()


def exposition(present: Iterable[Metric], *, as_openmetrics: bool) -> tuple[bytes, str]:
    """
    Return all metrics as text, and its media type: of every worker, whichever is asked. O(series * workers).

    Some milliseconds of work, so not for the event loop. `present` is what the caller knows at this moment.
    """
    everything: Any = _Everything(present)
    if as_openmetrics:
        return openmetrics.generate_latest(everything), openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(everything), CONTENT_TYPE_PLAIN_0_0_4
