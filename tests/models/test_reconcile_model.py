"""
The order of reads and the conditions of repairs, checked in every interleaving of a small world.

One user; three writers who create, change and delete; a put that may be lost or arrive late; a tailer; a
compaction of tombstones; one pass of a reconciliation, cut where other things can happen in between. Two
promises: no pass takes a user who exists from the mirror or back to an older version, and once everything has
come to rest and the tail is drained, the mirror is equal to Postgres. The product's choice keeps both; each of
the other choices breaks one, which also shows that the model can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import pytest

from .explore import explore

CREATE, UPDATE, DELETE = range(3)
IDLE, BEGUN, WRITTEN, COMMITTED, DONE = range(5)

Promise = Literal["not undone", "converges"]
Tombstones = Literal["none", "kept", "collected", "collected, floor", "collected, epoch"]


class Choice(NamedTuple):
    """How a reconciliation is done."""

    redis_first: bool
    only_if_unchanged: bool
    tombstones: Tombstones


class Held(NamedTuple):
    """What the mirror holds."""

    alive: bool
    version: int


class Stored(NamedTuple):
    """What Postgres holds: a row or a tombstone."""

    version: int
    xact: int


class Pass(NamedTuple):
    """The reconciliation: what it has read, and on which board it began."""

    step: int = 0
    held: Held | None = None
    row: Stored | None = None
    epoch: int = 0


class World(NamedTuple):
    """Everything that can differ between two moments; `late`, `crashes` and `compactions` are yet to come."""

    phases: tuple[int, ...] = (IDLE,) * 3
    versions: tuple[int, ...] = (0,) * 3
    xacts: tuple[int, ...] = (0,) * 3
    next_version: int = 1
    next_xact: int = 1
    row: Stored | None = None
    tombstone: Stored | None = None
    mirror: Held | None = None
    cursor: int = 1
    floor: int = 0
    epoch: int = 0
    network: tuple[Held, ...] = ()
    work: Pass = Pass()
    late: int = 2
    crashes: int = 1
    compactions: int = 1

    def at(self, writer: int, phase: int) -> World:
        """This world with a writer in another phase."""
        return self._replace(phases=_set(self.phases, writer, phase))

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing but the tail can happen any more."""
        return set(self.phases) == {DONE} and not self.network and self.work.step in (0, 3)


def _set(values: tuple[int, ...], index: int, value: int) -> tuple[int, ...]:
    return (*values[:index], value, *values[index + 1 :])


class Model:
    """The world's rules under one choice."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice

    def put(self, world: World, news: Held, *, bypass: bool = False) -> World:
        """Compare versions and write, as `row` does in Lua."""
        held, tombstones = world.mirror, self.choice.tombstones
        if held is not None and held.version >= news.version:
            return world
        has_floor = tombstones in ("collected, floor", "collected, epoch")
        if held is None and has_floor and not bypass and news.version <= world.floor:
            return world
        return world._replace(mirror=None if not news.alive and tombstones == "none" else news)

    def tail(self, world: World) -> World:
        """Carry over what is below the horizon."""
        open_ = [xact for phase, xact in zip(world.phases, world.xacts, strict=True) if phase in (BEGUN, WRITTEN)]
        horizon = min([*open_, world.next_xact])
        after = world
        for stored, alive in ((world.row, True), (world.tombstone, False)):
            if stored and world.cursor <= stored.xact < horizon:
                after = self.put(after, Held(alive, stored.version), bypass=True)
        return after._replace(cursor=max(world.cursor, horizon))

    def successors(self, world: World) -> Iterator[tuple[World, bool]]:
        """Yield every world that can come next, and whether the reconciliation made it."""
        for writer in (CREATE, UPDATE, DELETE):
            for after in self._write(world, writer):
                yield after, False
        for place, put in enumerate(world.network):
            arrived = world._replace(network=world.network[:place] + world.network[place + 1 :])
            yield self.put(arrived, put), False
        yield self.tail(world), False
        yield from ((after, False) for after in self._compact(world))
        yield from ((after, True) for after in self._reconcile(world))

    def _write(self, world: World, writer: int) -> Iterator[World]:
        phase, version = world.phases[writer], world.versions[writer]
        if phase == IDLE:
            begun = world.at(writer, BEGUN)
            yield begun._replace(xacts=_set(world.xacts, writer, world.next_xact), next_xact=world.next_xact + 1)
        elif phase == BEGUN and WRITTEN not in world.phases:
            if (world.row is not None) if writer != CREATE else (world.row is None and world.tombstone is None):
                written = world.at(writer, WRITTEN)
                versions = _set(world.versions, writer, world.next_version)
                yield written._replace(versions=versions, next_version=world.next_version + 1)
            elif writer != CREATE and (world.phases[CREATE] > WRITTEN or world.tombstone):
                yield world.at(writer, DONE)
        elif phase == WRITTEN:
            stored = Stored(version, world.xacts[writer])
            committed = world.at(writer, COMMITTED)
            is_deleted = writer == DELETE
            yield committed._replace(row=None, tombstone=stored) if is_deleted else committed._replace(row=stored)
        elif phase == COMMITTED:
            put, done = Held(writer != DELETE, version), world.at(writer, DONE)
            yield self.put(done, put)
            if world.late:
                yield done._replace(network=tuple(sorted((*world.network, put))), late=world.late - 1)
            if world.crashes:
                yield done._replace(crashes=world.crashes - 1)

    def _compact(self, world: World) -> Iterator[World]:
        held, stored, tombstones = world.mirror, world.tombstone, self.choice.tombstones
        is_settled = held is not None and not held.alive and stored is not None and stored.xact < world.cursor
        if held is not None and is_settled and world.compactions and tombstones.startswith("collected"):
            yield world._replace(
                mirror=None,
                floor=max(world.floor, held.version),
                compactions=world.compactions - 1,
                epoch=world.epoch + (tombstones == "collected, epoch"),
            )

    def _reconcile(self, world: World) -> Iterator[World]:
        work = world.work
        if work.step < 2:
            reads_redis = (work.step == 0) == self.choice.redis_first
            read = work._replace(held=world.mirror) if reads_redis else work._replace(row=world.row)
            epoch = world.epoch if work.step == 0 else work.epoch
            yield world._replace(work=read._replace(step=work.step + 1, epoch=epoch))
        elif work.step == 2:
            done = world._replace(work=Pass(step=3))
            held, row = work.held, work.row
            if work.epoch != world.epoch:
                yield done
            elif row and (held is None or held.version < row.version):
                yield self.put(done, Held(alive=True, version=row.version), bypass=True)
            elif held and held.alive and row is None and self._may_remove(world, held):
                gone = None if self.choice.tombstones == "none" else Held(alive=False, version=held.version)
                yield done._replace(mirror=gone)
            else:
                yield done

    def _may_remove(self, world: World, seen: Held) -> bool:
        if not self.choice.only_if_unchanged:
            return True
        return world.mirror is not None and world.mirror.version == seen.version

    def broken(self, world: World, after: World, *, by_pass: bool) -> Iterator[Promise]:
        """Yield the promises that a step breaks, or that a world at rest does."""
        held, now = world.mirror, after.mirror
        if by_pass and now != held and held and world.row and (not now or not now.alive or now.version < held.version):
            yield "not undone"
        if world.is_at_rest:
            drained = self.tail(world)
            while drained != (further := self.tail(drained)):
                drained = further
            shown = drained.mirror.version if drained.mirror and drained.mirror.alive else None
            if shown != (drained.row.version if drained.row else None):
                yield "converges"


def outcome(choice: Choice, enough: set[Promise]) -> tuple[set[Promise], int]:
    """Visit every world of a choice; returns the broken promises and the number of worlds, as `explore` does."""
    model = Model(choice)

    def steps(world: World) -> Iterator[tuple[World, Iterator[Promise]]]:
        for after, by_pass in model.successors(world):
            yield after, model.broken(world, after, by_pass=by_pass)

    return explore(World(), steps, enough)


@pytest.mark.parametrize("tombstones", ["kept", "collected, epoch"])
def test_what_the_product_does_keeps_both_promises(tombstones: Tombstones) -> None:
    """Redis is read first, a removal names the version it saw, and tombstones stay as long as the epoch does."""
    broken, worlds = outcome(Choice(redis_first=True, only_if_unchanged=True, tombstones=tombstones), set())

    assert set() == broken
    assert worlds > 25_000


@pytest.mark.parametrize(
    ("redis_first", "only_if_unchanged", "tombstones", "promises"),
    [
        (False, True, "none", {"not undone", "converges"}),
        (False, True, "kept", {"not undone"}),
        (False, True, "collected", {"not undone", "converges"}),
        (False, True, "collected, floor", {"not undone", "converges"}),
        (False, True, "collected, epoch", {"not undone"}),
        *((False, False, tombstones, {"not undone", "converges"}) for tombstones in get_args(Tombstones)),
        *((True, False, tombstones, {"converges"}) for tombstones in get_args(Tombstones)),
        (True, True, "none", {"converges"}),
        (True, True, "collected", {"converges"}),
        (True, True, "collected, floor", {"converges"}),
    ],
)
def test_every_other_way_breaks_a_promise(
    redis_first: bool, only_if_unchanged: bool, tombstones: Tombstones, promises: set[Promise]
) -> None:
    """Postgres first, a removal whatever was seen, or tombstones that go one by one: each loses or revives a user."""
    broken, _ = outcome(Choice(redis_first, only_if_unchanged, tombstones), promises)

    assert promises == broken
