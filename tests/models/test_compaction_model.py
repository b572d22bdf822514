"""
Compaction, checked in every interleaving of a small world, with a Redis that may fall back over it.

One user, which three transactions create, change or create again, and delete; puts that may be lost or arrive late; a tail
in three steps; one repair; one compaction in seven steps; and Redis may return once to what it was at any moment before.
Two promises: once everything has come to rest and the tail is drained, the mirror is equal to Postgres; and a mirror that
says of a committed write that it has been reached shows it, or a later deletion. The product's choice keeps both; each
of the others breaks one, which also shows that the model can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import pytest

from .explore import explore

CREATE, UPDATE, DELETE, OTHER = range(4)
"""What a transaction does to the user; another one is open, and has nothing to do with them."""
IDLE, BEGUN, WRITTEN, COMMITTED, DONE = range(5)
DELETED, CHANGED = (CREATE, DELETE), (CREATE, UPDATE, OTHER)
CHANGED_AND_DELETED, CREATED_AGAIN = (CREATE, UPDATE, DELETE), (CREATE, DELETE, CREATE)
BEGINNING, DRAWN, NUMBERED, PAST, COMPACTED, SWEPT, ANNOUNCED, ENDED = range(8)

Promise = Literal["converges", "reached"]


class Choice(NamedTuple):
    """How compaction is done; the defaults are what the product does."""

    new_epoch: bool = True
    sets_floor: bool = True
    waits_for_checkpoint: bool = True
    waits_for_another_cycle: bool = True
    draws_version_first: bool = True
    numbers_before_drawing: bool = True
    """Whether a transaction has its id before it draws its version."""
    checks_purge: bool = True
    checks_purge_with_the_changes: bool = True
    announces: bool = True


class Faults(NamedTuple):
    """What may still go wrong."""

    late: int = 0
    crashes: int = 0
    rollbacks: int = 0
    passes: int = 0


class Held(NamedTuple):
    """A version of the user, there or deleted."""

    alive: bool
    version: int


class Stored(NamedTuple):
    """What Postgres holds: a row or a tombstone."""

    version: int
    xact: int


class Redis(NamedTuple):
    """Everything that falls back together."""

    held: Held | None = None
    cursor: int = 1
    floor: int = 0
    settled: int = 0
    epoch: int = 0
    token: tuple[int, int] = (1, 0)
    is_fresh: bool = False
    """Whether a cycle that began after the compaction saw the checkpoint where it must be was applied."""


class Page(NamedTuple):
    """A cycle of the tail: what Redis said, then what Postgres did."""

    epoch: int
    token: tuple[int, int]
    cursor: int
    is_fresh: bool
    unsettled: tuple[Held, ...] | None = None
    news: tuple[Held, ...] | None = None


class Job(NamedTuple):
    """The compaction."""

    step: int = BEGINNING
    version: int = 0
    xact: int = 0
    epoch: int = 0


class Repair(NamedTuple):
    """A reconciliation that found the user missing: on which board, and what Postgres had."""

    epoch: int
    row: Held


class World(NamedTuple):
    """Everything that can differ between two moments."""

    faults: Faults
    phases: tuple[int, ...]
    versions: tuple[int, ...]
    xacts: tuple[int, ...]
    next_version: int = 1
    next_xact: int = 1
    row: Stored | None = None
    tombstone: Stored | None = None
    purged: int = 0
    redis: Redis = Redis()
    saved: Redis | None = None
    epochs: int = 0
    page: Page | None = None
    repair: Repair | None = None
    job: Job = Job()
    network: tuple[Held, ...] = ()


def _set(values: tuple[int, ...], index: int, value: int) -> tuple[int, ...]:
    return (*values[:index], value, *values[index + 1 :])


class Model:
    """The world's rules under one choice."""

    def __init__(self, choice: Choice, writers: tuple[int, ...]) -> None:
        self.choice, self.writers = choice, writers
        # What is above the horizon is read by a statement of its own. That makes a difference, and many worlds, only
        # where a user is changed twice.
        self.reads_apart = writers == CHANGED

    def put(self, redis: Redis, news: Held, *, bypass: bool = False) -> Redis:
        """Compare versions and write, as `rows.lua` does."""
        held = redis.held
        if held is not None and held.version >= news.version:
            return redis
        if held is None and not bypass and news.version <= redis.floor:
            return redis
        return redis._replace(held=news)

    def successors(self, world: World) -> Iterator[World]:
        """Yield every world that can come next."""
        for writer, what in enumerate(self.writers):
            yield from self._write(world, writer, what)
        for place, put in enumerate(world.network):
            arrived = world.network[:place] + world.network[place + 1 :]
            yield world._replace(network=arrived, redis=self.put(world.redis, put))
        yield self.tail(world)
        yield from self._compact(world)
        yield from self._repair(world)
        yield from self._fall_back(world)

    def _write(self, world: World, writer: int, what: int) -> Iterator[World]:
        phase, version = world.phases[writer], world.versions[writer]
        at = {
            step: world._replace(phases=_set(world.phases, writer, step)) for step in (BEGUN, WRITTEN, COMMITTED, DONE)
        }
        xacts = _set(world.xacts, writer, world.next_xact)
        versions = _set(world.versions, writer, world.next_version)
        if phase == IDLE:
            # With the wrong order a transaction is begun by drawing a version, and has no id yet.
            if self.choice.numbers_before_drawing:
                yield at[BEGUN]._replace(xacts=xacts, next_xact=world.next_xact + 1)
            else:
                yield at[BEGUN]._replace(versions=versions, next_version=world.next_version + 1)
        elif phase == BEGUN and WRITTEN not in world.phases:
            if what == OTHER or (world.row is None) != (what == CREATE):
                yield at[DONE]._replace(versions=_set(world.versions, writer, 0))
            elif self.choice.numbers_before_drawing:
                yield at[WRITTEN]._replace(versions=versions, next_version=world.next_version + 1)
            else:
                yield at[WRITTEN]._replace(xacts=xacts, next_xact=world.next_xact + 1)
        elif phase == WRITTEN:
            stored = Stored(version, world.xacts[writer])
            yield at[COMMITTED]._replace(**({"row": None, "tombstone": stored} if what == DELETE else {"row": stored}))
        elif phase == COMMITTED:
            put, faults = Held(what != DELETE, version), world.faults
            yield at[DONE]._replace(redis=self.put(world.redis, put))
            if faults.late:
                network = tuple(sorted((*world.network, put)))
                yield at[DONE]._replace(network=network, faults=faults._replace(late=faults.late - 1))
            if faults.crashes:
                yield at[DONE]._replace(faults=faults._replace(crashes=faults.crashes - 1))

    def _horizon(self, world: World) -> int:
        open_ = [
            xact for phase, xact in zip(world.phases, world.xacts, strict=True) if phase in (BEGUN, WRITTEN) and xact
        ]
        return min([*open_, world.next_xact])

    def tail(self, world: World) -> World:
        """Take one step of a cycle: ask Redis, then Postgres, then apply."""
        page, redis = world.page, world.redis
        if page is None:
            is_fresh = world.job.step == PAST
            if self.choice.checks_purge and redis.cursor < world.purged:
                return self._load(world)
            return world._replace(page=Page(redis.epoch, redis.token, redis.cursor, is_fresh))
        if page.news is None:
            if self.choice.checks_purge and self.choice.checks_purge_with_the_changes and page.cursor < world.purged:
                return world._replace(page=None)
            known = [(stored, alive) for stored, alive in ((world.row, True), (world.tombstone, False)) if stored]
            horizon = self._horizon(world)
            if page.unsettled is None:
                above = tuple(Held(alive, stored.version) for stored, alive in known if stored.xact >= horizon)
                page = page._replace(unsettled=above)
                if self.reads_apart:
                    return world._replace(page=page)
            below = (Held(alive, stored.version) for stored, alive in known if page.cursor <= stored.xact < horizon)
            news = (*below, *(page.unsettled or ()))
            return world._replace(page=page._replace(news=news, cursor=max(page.cursor, horizon)))
        if (page.epoch, page.token) == (redis.epoch, redis.token):
            for item in page.news:
                redis = self.put(redis, item, bypass=True)
            token = (page.cursor, world.faults.rollbacks)
            redis = redis._replace(cursor=page.cursor, token=token, is_fresh=redis.is_fresh or page.is_fresh)
        return world._replace(page=None, redis=redis)

    def _load(self, world: World) -> World:
        held = Held(alive=True, version=world.row.version) if world.row else None
        cursor, epoch = self._horizon(world), world.epochs + 1
        redis = Redis(held, cursor, world.next_version - 1, 0, epoch, (cursor, world.faults.rollbacks))
        return world._replace(redis=redis, epochs=epoch)

    def _compact(self, world: World) -> Iterator[World]:
        job, redis, choice = world.job, world.redis, self.choice
        draws = job.step == (BEGINNING if choice.draws_version_first else DRAWN)
        if job.step in (BEGINNING, DRAWN) and draws:
            yield world._replace(job=job._replace(step=job.step + 1, version=world.next_version - 1))
        elif job.step in (BEGINNING, DRAWN):
            numbered = job._replace(step=job.step + 1, xact=world.next_xact)
            yield world._replace(job=numbered, next_xact=world.next_xact + 1)
        elif job.step == NUMBERED and (redis.cursor >= job.xact or not choice.waits_for_checkpoint):
            past = job._replace(step=PAST, epoch=redis.epoch)
            yield world._replace(job=past, redis=redis._replace(is_fresh=not choice.waits_for_another_cycle))
        elif job.step == PAST and redis.epoch != job.epoch:
            yield world._replace(job=Job(ENDED))
        elif job.step == PAST and redis.is_fresh and (redis.cursor >= job.xact or not choice.waits_for_checkpoint):
            epoch = world.epochs + 1 if choice.new_epoch else redis.epoch
            begun = redis._replace(
                epoch=epoch,
                token=redis.token if epoch == redis.epoch else (-1, epoch),
                floor=max(redis.floor, job.version) if choice.sets_floor else redis.floor,
                settled=job.version,
            )
            yield world._replace(redis=begun, epochs=epoch, job=job._replace(step=COMPACTED, epoch=epoch))
        elif job.step == COMPACTED and redis.epoch != job.epoch:
            yield world._replace(job=Job(ENDED))
        elif job.step == COMPACTED:
            held = redis.held
            is_gone = held is not None and not held.alive and held.version <= redis.settled
            swept = redis._replace(held=None) if is_gone else redis
            yield world._replace(redis=swept, job=job._replace(step=SWEPT))
        elif job.step == SWEPT:
            purged = max(world.purged, job.xact) if choice.announces else world.purged
            yield world._replace(purged=purged, job=job._replace(step=ANNOUNCED))
        elif job.step == ANNOUNCED:
            old = world.tombstone
            goes = old is not None and old.xact < job.xact and old.version <= job.version
            yield world._replace(tombstone=None if goes else old, job=Job(ENDED))

    def _repair(self, world: World) -> Iterator[World]:
        faults = world.faults
        if world.repair is not None:
            redis = world.redis
            if redis.epoch == world.repair.epoch:
                redis = self.put(redis, world.repair.row, bypass=True)
            yield world._replace(redis=redis, repair=None)
        elif faults.passes and world.row and world.redis.held is None:
            repair = Repair(world.redis.epoch, Held(alive=True, version=world.row.version))
            yield world._replace(repair=repair, faults=faults._replace(passes=faults.passes - 1))

    def _fall_back(self, world: World) -> Iterator[World]:
        faults = world.faults
        # Over the compaction, or while it waits: elsewhere it is the model of the protocol that tells.
        if faults.rollbacks and world.saved is None and world.job.step < COMPACTED:
            yield world._replace(saved=world.redis)
        elif faults.rollbacks and world.saved is not None and world.job.step >= PAST:
            yield world._replace(redis=world.saved, saved=None, faults=faults._replace(rollbacks=0))

    def broken(self, world: World) -> Iterator[Promise]:
        """Yield the promises that a world breaks."""
        redis = world.redis
        written = tuple(zip(self.writers, world.phases, world.versions, strict=True))
        deleted = max((version for what, phase, version in written if what == DELETE and phase >= COMMITTED), default=0)
        if redis.held is None:
            for _, phase, version in written:
                if phase >= COMMITTED and deleted < version <= redis.settled:
                    yield "reached"
        if set(world.phases) == {DONE} and not world.network and not world.repair:
            drained = world
            for _ in range(12):
                drained = self.tail(drained)
            while drained.page is not None:
                drained = self.tail(drained)
            shown = drained.redis.held.version if drained.redis.held and drained.redis.held.alive else None
            if shown != (drained.row.version if drained.row else None):
                yield "converges"


def outcome(
    choice: Choice, faults: Faults, writers: tuple[int, ...], enough: frozenset[Promise] = frozenset()
) -> tuple[set[Promise], int]:
    """Visit every world of a choice; returns the broken promises and the number of worlds, as `explore` does."""
    model = Model(choice, writers)

    def steps(world: World) -> Iterator[tuple[World, Iterator[Promise]]]:
        for after in model.successors(world):
            yield after, model.broken(after)

    nothing = (0,) * len(writers)
    return explore(World(faults, nothing, nothing, nothing), steps, set(enough))


LATE, CRASH, ROLLBACK, PASS = Faults(late=1), Faults(crashes=1), Faults(rollbacks=1), Faults(crashes=1, passes=1)
FAULTS = {"late": LATE, "crash": CRASH, "rollback": ROLLBACK, "repair": PASS}


@pytest.mark.parametrize(
    ("faults", "writers"),
    [
        pytest.param(name, writers, marks=pytest.mark.slow if name == "rollback" or writers == CHANGED else ())
        for name in FAULTS
        for writers in (DELETED, CHANGED)
    ],
)
def test_what_the_product_does_keeps_both_promises(faults: str, writers: tuple[int, ...]) -> None:
    broken, worlds = outcome(Choice(), FAULTS[faults], writers)

    assert set() == broken
    assert worlds > 3_000


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("writers", [CHANGED_AND_DELETED, CREATED_AGAIN])
@pytest.mark.parametrize("faults", FAULTS)
def test_it_keeps_them_with_three_writers(faults: str, writers: tuple[int, ...]) -> None:
    broken, _ = outcome(Choice(), FAULTS[faults], writers)

    assert set() == broken


@pytest.mark.parametrize(
    ("choice", "faults", "writers", "promises"),
    [
        pytest.param(Choice(new_epoch=False), PASS, DELETED, {"converges"}, id="epoch kept"),
        pytest.param(Choice(sets_floor=False), LATE, DELETED, {"converges"}, id="no floor"),
        pytest.param(Choice(checks_purge=False), ROLLBACK, DELETED, {"converges"}, id="purge not checked"),
        pytest.param(
            Choice(announces=False), ROLLBACK, DELETED, {"converges"}, id="purge not recorded", marks=pytest.mark.slow
        ),
        pytest.param(
            Choice(checks_purge_with_the_changes=False), ROLLBACK, DELETED, {"converges"}, id="purge checked before"
        ),
        pytest.param(Choice(waits_for_checkpoint=False), CRASH, CHANGED, {"reached"}, id="checkpoint not waited for"),
        pytest.param(Choice(waits_for_another_cycle=False), CRASH, CHANGED, {"reached"}, id="no further cycle"),
        pytest.param(Choice(draws_version_first=False), CRASH, CHANGED, {"reached"}, id="transaction taken first"),
        pytest.param(
            Choice(numbers_before_drawing=False),
            CRASH,
            CHANGED,
            {"reached", "converges"},
            id="version drawn without an id",
        ),
    ],
)
def test_every_other_way_breaks_a_promise(
    choice: Choice, faults: Faults, writers: tuple[int, ...], promises: set[Promise]
) -> None:
    """So it is known what each rule is for."""
    broken, _ = outcome(choice, faults, writers, frozenset(promises))

    assert promises == broken
