"""What was measured, as it is kept in JSON: samples as they came, nothing summed up yet."""

from __future__ import annotations

from statistics import median

import msgspec


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

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


class Operation(msgspec.Struct):
    """The samples of one operation, one a round, and those of a bare handler that returns the same bytes."""

    name: str
    title: str
    connections: int
    generator: str
    samples: list[Sample] = []
    bare: list[Sample] = []

    def per_second(self) -> float:
        """The median of the rounds."""
        return median(sample.per_second for sample in self.samples)

    def latency_ms(self, percentile: str) -> float:
        """The median of the rounds; `percentile` is p50, p95 or p99."""
        return float(median(getattr(sample, f"{percentile}_ms") for sample in self.samples))

    def share_of_bare(self) -> float | None:
        """Requests a second, of those of the bare handler; the median of the rounds, each with its own."""
        if not self.bare:
            return None
        pairs = zip(self.samples, self.bare, strict=True)
        return median(sample.per_second / bare.per_second for sample, bare in pairs)

    def failed(self) -> int:
        """Answers that were errors, and requests without an answer."""
        return sum(sample.failed for sample in [*self.samples, *self.bare])


class HttpResult(msgspec.Struct, kw_only=True):
    """What `benchmark.py http` measured."""

    environment: Environment
    users: int
    workers: int
    seconds: float
    rounds: int
    seed: int
    operations: list[Operation]
    notes: list[str] = []
