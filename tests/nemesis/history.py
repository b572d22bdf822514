"""What a run leaves behind: every operation, fault and sample of the mirror, and what Postgres committed. All JSON."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

Outcome = Literal["ok", "fail", "unknown"]
Verb = Literal["create", "rate", "user", "page"]


class Line(msgspec.Struct, frozen=True):
    """A row of a page."""

    position: int
    rank: int
    id: str
    username: str
    rating: int


class Op(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """
    One request and its answer, between two moments of the monotonic clock.

    `fail` is certain to have changed nothing; `unknown` may have been done, or may still be. `born` tells one
    life of a node from the next.
    """

    client: int
    node: int
    born: int
    op: Verb
    begin: float
    end: float
    outcome: Outcome
    status: int = 0
    id: str = ""
    username: str = ""
    asked: int | None = None
    token: str = ""
    version: int | None = None
    rating: int | None = None
    rank: int | None = None
    position: int | None = None
    source: str = ""
    lag_ms: int | None = None
    stale: bool = False
    as_of: float | None = None
    mirror: str = ""
    offset: int | None = None
    after: tuple[int, str] | None = None
    total: int | None = None
    rows: tuple[Line, ...] = ()


class Commit(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A committed state of a user, None for the rating of one who is gone; committed between two moments, the last maybe unknown."""

    id: str
    version: int
    rating: int | None
    username: str
    not_before: float
    not_after: float | None = None
    xact: int = 0


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """
    What was done to whom: `redis`, `postgres`, `node`, or `work`, which harms nobody.

    `rollback`: Redis lost something it had acknowledged. `damage`: the board lied until the end of the fault.
    """

    name: str
    kind: Literal["redis", "postgres", "node", "work"]
    begin: float
    end: float
    node: int | None = None
    rollback: bool = False
    damage: bool = False


class Sample(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The users hash, read in one step between two moments; `applied` is what it claimed, on the monotonic clock."""

    era: str
    begin: float
    end: float
    ready: bool
    applied: float
    versions: dict[str, int]


class Stall(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A time in which this machine did not let us run: nothing that was measured over it counts as slow."""

    begin: float
    end: float


class History(msgspec.Struct, kw_only=True):
    """All of it."""

    ops: list[Op] = msgspec.field(default_factory=list)
    commits: list[Commit] = msgspec.field(default_factory=list)
    faults: list[Fault] = msgspec.field(default_factory=list)
    samples: list[Sample] = msgspec.field(default_factory=list)
    stalls: list[Stall] = msgspec.field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write a line each."""
        parts: Iterable[Iterable[msgspec.Struct]] = (
            self.ops, self.commits, self.faults, self.samples, self.stalls,
        )  # fmt: skip
        path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for part in parts for line in part))

    @classmethod
    def read(cls, path: Path) -> History:
        """Read what `write` wrote."""
        history = cls()
        places = {
            Op: history.ops, Commit: history.commits, Fault: history.faults,
            Sample: history.samples, Stall: history.stalls,
        }  # fmt: skip
        decode = msgspec.json.Decoder(Op | Commit | Fault | Sample | Stall).decode
        for text in path.read_bytes().splitlines():
            line = decode(text)
            places[type(line)].append(line)  # type: ignore[index,attr-defined]
        return history
