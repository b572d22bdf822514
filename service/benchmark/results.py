"""What was measured, as it is kept in JSON: samples as they came, nothing summed up yet."""

from __future__ import annotations

from math import ceil
from statistics import median
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


class Environment(msgspec.Struct, kw_only=True):
    """Where it was measured; nothing that names a machine, an account or a directory."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    postgres: str
    redis: str
    revision: str
    date: str


class Sample(msgspec.Struct, frozen=True):
    """One stretch of load: how many requests or calls, in how long, and how long they took."""

    requests: int
    seconds: float
    failed: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, times: Iterable[float], *, seconds: float, failed: int = 0) -> Sample:
        """Sum up how many seconds each call took; percentiles by nearest rank."""
        millis = sorted(1000 * time for time in times)
        if not millis:
            return cls(0, seconds, failed, 0.0, 0.0, 0.0, 0.0)
        p50, p95, p99 = (millis[ceil(share * len(millis)) - 1] for share in (0.5, 0.95, 0.99))
        return cls(len(millis), seconds, failed, p50, p95, p99, millis[-1])

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


Seen = Literal["lag", "acknowledged", "past"]


class Delay(msgspec.Struct, frozen=True):
    """How long something took to be seen in the mirror, or how far it said that it lags."""

    name: Seen
    sample: Sample


class Operation(msgspec.Struct):
    """The samples of one operation, one a round, and those of a bare handler that returns the same bytes."""

    name: str
    title: str
    connections: int
    generator: str
    batch: int = 1
    samples: list[Sample] = []
    bare: list[Sample] = []
    delays: list[Delay] = []
    elsewhere: int = 0
    """Answers that were not ranked by Redis, of all rounds."""

    def per_second(self) -> float:
        """Requests a second, or ratings where there are many in a request; the median of the rounds."""
        return self.batch * median(sample.per_second for sample in self.samples)

    def latency_ms(self, percentile: str) -> float:
        """The median of the rounds; `percentile` is p50, p95 or p99."""
        return float(median(getattr(sample, f"{percentile}_ms") for sample in self.samples))

    def share_of_bare(self) -> float | None:
        """Requests a second, of those of the bare handler; the median of the rounds, each with its own."""
        pairs = zip(self.samples, self.bare, strict=bool(self.bare))
        shares = [sample.per_second / bare.per_second for sample, bare in pairs if bare.requests]
        return median(shares) if shares else None

    def failed(self) -> int:
        """Answers that were errors, and requests without an answer."""
        return sum(sample.failed for sample in [*self.samples, *self.bare])


KindOfRead = Literal["rank", "page", "around"]


class Timing(msgspec.Struct):
    """The samples of one way to ask a store, one a round; each call asks for `batch` ranks or pages."""

    name: str
    title: str
    kind: KindOfRead
    batch: int = 1
    peer: bool = False
    samples: list[Sample] = []

    def per_second(self) -> float:
        """Ranks or pages a second, on one connection; the median of the rounds."""
        return self.batch * median(sample.per_second for sample in self.samples)

    def latency_ms(self, percentile: str) -> float:
        """Of a call; the median of the rounds."""
        return float(median(getattr(sample, f"{percentile}_ms") for sample in self.samples))


class Memory(msgspec.Struct, frozen=True):
    """What Redis needs, by MEMORY USAGE of every element, in bytes."""

    board: int
    users: int
    bare: int
    """A sorted set of the same users' ids and ratings, and nothing else."""

    @property
    def ladder(self) -> int:
        """Everything that the mirror keeps of all users; objects in the cache, which expire, come on top."""
        return self.board + self.users


class Size(msgspec.Struct):
    """What was measured with so many users."""

    users: int
    timings: list[Timing]
    memory: Memory

    def timing(self, name: str) -> Timing | None:
        """That of this name, None if it was not measured."""
        return next((timing for timing in self.timings if timing.name == name), None)


class RankResult(msgspec.Struct, kw_only=True):
    """What `benchmark.py rank` measured."""

    environment: Environment
    seconds: float
    rounds: int
    seed: int
    sizes: list[Size]
    missing: list[str] = []
    """Peers that were not measured, and why."""


class HttpResult(msgspec.Struct, kw_only=True):
    """What `benchmark.py http` measured."""

    environment: Environment
    users: int
    workers: int
    seconds: float
    rounds: int
    seed: int
    operations: list[Operation]
    missing: list[str] = []
    """What was not measured, and why."""


class WriteResult(msgspec.Struct, kw_only=True):
    """What `benchmark.py write` measured."""

    environment: Environment
    users: int
    workers: int
    seconds: float
    seed: int
    fsync: str
    synchronous_commit: str
    operations: list[Operation] = []


class Moment(msgspec.Struct, frozen=True):
    """What each process that serves held in memory at some moment of the load."""

    minute: float
    resident_mib: list[float]


class SoakResult(msgspec.Struct, kw_only=True):
    """What `benchmark.py soak` measured."""

    environment: Environment
    users: int
    workers: int
    connections: int
    minutes: float
    seed: int
    moments: list[Moment] = []
    samples: list[Sample] = []

    def largest_mib(self) -> float:
        """What the largest process held in the end."""
        return max(self.moments[-1].resident_mib)

    def growth(self) -> float:
        """By how much of itself the largest process grew from the first quarter's end to the load's."""
        quarter = max(self.moments[len(self.moments) // 4].resident_mib)
        return self.largest_mib() / quarter - 1

    def failed(self) -> int:
        """Answers that were errors, and requests without an answer."""
        return sum(sample.failed for sample in self.samples)


class Results(msgspec.Struct):
    """All that was measured and kept; None for what was not."""

    rank: RankResult | None = None
    http: HttpResult | None = None
    write: WriteResult | None = None
    soak: SoakResult | None = None

    def operation(self, name: str) -> Operation | None:
        """That of `benchmark.py http` of this name, None if it was not measured."""
        found = self.http.operations if self.http else []
        return next((operation for operation in found if operation.name == name), None)
