"""
The protocol between the two stores, checked in every interleaving of a small world.

Writers who commit and put; a tailer, cut where other things can happen in between; a writer that dies, a put that
is late or lost, a Redis that falls back to an earlier state of itself or fails over to another server, whose clock is
another one, with a state that may be earlier. Two promises: once all has come to rest and
the tail is drained, the mirror is equal to Postgres; and whenever the mirror says how fresh it is, everything that
was committed by then is in it. The product's protocol keeps both under every fault; each of the others breaks one,
under the faults that are named, which also shows that the model can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

IDLE, BEGUN, WRITTEN, BETWEEN, DONE = range(5)
CURRENT, OLDER = range(2)
ASLEEP, AWAKE, SPECULATING, SETTLING, READ, FOUND, APPLIED = range(7)

Promise = Literal["converges", "fresh"]
Recovery = Literal["none", "outbox", "tail"]
Stamp = Literal["the clock", "the taker", "nothing"]
"""Which server the mark of freshness names: the one whose clock it was read from, the one that takes the batch, none."""
Change = tuple[int, int]
"""A user and the version."""


class Protocol(NamedTuple):
    """How a write reaches the mirror; as it stands, the product's way."""

    puts_first: bool = False
    compares_versions: bool = True
    recovery: Recovery = "tail"
    follows_sequence: bool = False
    checkpoint_in_postgres: bool = False
    checkpoint_apart: bool = False
    checks_token: bool = True
    heartbeat_checks_token: bool = True
    horizon_apart: bool = False
    unsettled: Literal["none", "first", "last"] = "first"
    clock_read_first: bool = True
    stamp: Stamp = "the clock"


class Faults(NamedTuple):
    """What may still go wrong; Redis falls back once at most, or two names of tokens would be too few."""

    crashes: int = 0
    late: int = 0
    rollbacks: int = 0
    failovers: int = 0


class Board(NamedTuple):
    """
    What Redis holds: the version of each user, the tail's marks, and what was committed by `applied`.

    That moment was read from the clock of the server `clock`; `run` is the one that the board says.
    """

    held: tuple[int, ...]
    applied: tuple[int, ...]
    checkpoint: int = 1
    token: int = CURRENT
    clock: int = 0
    run: int = 0


class Stored(NamedTuple):
    """A row of Postgres."""

    version: int
    xact: int


class Tail(NamedTuple):
    """A cycle of the tailer: what it read of the board, and what it is about to apply."""

    step: int = ASLEEP
    checkpoint: int = 0
    token: int = 0
    committed: tuple[int, ...] = ()
    batch: tuple[Change, ...] = ()
    following: int = 0
    server: int = 0


class World(NamedTuple):
    """Everything that can differ between two moments."""

    phases: tuple[int, ...]
    xacts: tuple[int, ...]
    versions: tuple[int, ...]
    rows: tuple[Stored, ...]
    board: Board
    faults: Faults
    next_version: int = 2
    next_xact: int = 1
    outbox: frozenset[int] = frozenset()
    network: tuple[Change, ...] = ()
    history: frozenset[Board] = frozenset()
    tail: Tail = Tail()
    checkpoint: int = 1
    server: int = 0

    @property
    def committed(self) -> tuple[int, ...]:
        """The version of each user in Postgres."""
        return tuple(row.version for row in self.rows)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing but the tail can happen any more."""
        return not self.network and all(phase == DONE for phase in self.phases)

    def with_board(self, board: Board) -> World:
        """This world with another board; the one before can come back if Redis still may fall back."""
        if board == self.board:
            return self
        may_return = self.faults.rollbacks or self.faults.failovers
        history = self.history | {self.board} if may_return else self.history
        return self._replace(board=board, history=history)


def _set(values: tuple[int, ...], index: int, value: int) -> tuple[int, ...]:
    return (*values[:index], value, *values[index + 1 :])


class Model:
    """The world's rules under one protocol; `writers` names the user of each writer."""

    def __init__(self, protocol: Protocol, writers: tuple[int, ...]) -> None:
        self.protocol, self.writers = protocol, writers

    def start(self, faults: Faults) -> World:
        """Return a world in which every user is mirrored in the first version."""
        users, zeros = len(set(self.writers)), (0,) * len(self.writers)
        ones = (1,) * users
        return World(zeros, zeros, zeros, (Stored(1, 0),) * users, Board(ones, ones), faults)

    def put(self, board: Board, changes: tuple[Change, ...]) -> Board:
        """Compare versions and write, as `row` does in Lua."""
        held = board.held
        for user, version in changes:
            if not self.protocol.compares_versions or held[user] < version:
                held = _set(held, user, version)
        return board._replace(held=held)

    def steps(self, world: World) -> Iterator[tuple[World, list[Promise]]]:
        """Yield every world that can come next, and the promises that are broken there."""
        for after in self._successors(world):
            yield after, list(self._broken(after))

    def _successors(self, world: World) -> Iterator[World]:
        for writer in range(len(self.writers)):
            yield from self._write(world, writer)
        for place, put in enumerate(world.network):
            without = world._replace(network=world.network[:place] + world.network[place + 1 :])
            yield without.with_board(self.put(world.board, (put,)))
            yield without
        if world.faults.rollbacks:
            faults = world.faults._replace(rollbacks=world.faults.rollbacks - 1)
            fallen = world._replace(faults=faults, history=frozenset())
            yield from (fallen._replace(board=board) for board in world.history - {world.board})
        if world.faults.failovers:
            faults = world.faults._replace(failovers=world.faults.failovers - 1)
            moved = world._replace(faults=faults, history=frozenset(), server=1 - world.server)
            yield from (moved._replace(board=board) for board in world.history | {world.board})
        yield self.recover(world)

    def _write(self, world: World, writer: int) -> Iterator[World]:
        phase, user = world.phases[writer], self.writers[writer]
        at_next = world._replace(phases=_set(world.phases, writer, phase + 1))
        if phase == IDLE:
            yield at_next._replace(xacts=_set(world.xacts, writer, world.next_xact), next_xact=world.next_xact + 1)
        elif phase == BEGUN and not self._is_locked(world, user):
            versions = _set(world.versions, writer, world.next_version)
            yield at_next._replace(versions=versions, next_version=world.next_version + 1)
        elif phase in (WRITTEN, BETWEEN):
            if (phase == WRITTEN) == self.protocol.puts_first:
                yield from self._send(at_next, (user, world.versions[writer]))
            else:
                yield self._commit(at_next, writer)
            if phase == BETWEEN and world.faults.crashes:
                yield at_next._replace(faults=world.faults._replace(crashes=world.faults.crashes - 1))

    def _is_locked(self, world: World, user: int) -> bool:
        locking = (WRITTEN, BETWEEN) if self.protocol.puts_first else (WRITTEN,)
        return any(
            phase in locking and theirs == user for phase, theirs in zip(world.phases, self.writers, strict=True)
        )

    def _send(self, world: World, put: Change) -> Iterator[World]:
        yield world.with_board(self.put(world.board, (put,)))
        if world.faults.late:
            faults = world.faults._replace(late=world.faults.late - 1)
            yield world._replace(network=tuple(sorted((*world.network, put))), faults=faults)

    def _commit(self, world: World, writer: int) -> World:
        user = self.writers[writer]
        row = Stored(world.versions[writer], world.xacts[writer])
        outbox = world.outbox | {user} if self.protocol.recovery == "outbox" else world.outbox
        return world._replace(rows=(*world.rows[:user], row, *world.rows[user + 1 :]), outbox=outbox)

    def recover(self, world: World) -> World:
        """Take the next step of the repair; the same world if the protocol has none or there is nothing to do."""
        if self.protocol.recovery == "outbox":
            return self._relay(world)
        return self._follow(world) if self.protocol.recovery == "tail" else world

    def _relay(self, world: World) -> World:
        tail = world.tail
        if tail.step == ASLEEP:
            if not world.outbox:
                return world
            batch = tuple((user, world.rows[user].version) for user in sorted(world.outbox))
            return world._replace(tail=Tail(FOUND, batch=batch))
        if tail.step == FOUND:
            applied = world.with_board(self.put(world.board, tail.batch))
            return applied._replace(tail=tail._replace(step=APPLIED))
        done = {user for user, version in tail.batch if world.rows[user].version == version}
        return world._replace(outbox=world.outbox - done, tail=Tail())

    def _follow(self, world: World) -> World:
        protocol, tail = self.protocol, world.tail
        if tail.step == ASLEEP:
            checkpoint = world.checkpoint if protocol.checkpoint_in_postgres else world.board.checkpoint
            after = AWAKE if protocol.unsettled == "first" else SETTLING
            found = Tail(after, checkpoint, world.board.token, world.committed, server=world.server)
            return world._replace(tail=found)
        if tail.step == AWAKE:
            horizon = self._horizon(world)
            batch = self._committed(world, tail.checkpoint, above=horizon)
            return world._replace(tail=tail._replace(step=SPECULATING if batch else SETTLING, batch=batch))
        if tail.step == SPECULATING:
            is_last = protocol.unsettled == "last"
            return self._apply(world, Tail() if is_last else tail._replace(step=SETTLING, batch=()), fresh=is_last)
        if tail.step in (SETTLING, READ):
            return self._query(world)
        if tail.step == FOUND:
            return self._settle(world)
        marked = world.with_board(world.board._replace(checkpoint=tail.following))
        if protocol.checkpoint_in_postgres:
            marked = world._replace(checkpoint=tail.following)
        return marked._replace(tail=Tail())

    def _query(self, world: World) -> World:
        protocol, tail = self.protocol, world.tail
        if tail.step == READ:
            batch, following = tail.batch, max(tail.checkpoint, self._horizon(world))
        elif protocol.follows_sequence:
            batch = tuple((user, row.version) for user, row in enumerate(world.rows) if row.version > tail.checkpoint)
            following = max([tail.checkpoint, *(version for _, version in batch)])
        elif protocol.horizon_apart:
            batch = self._committed(world, tail.checkpoint)
            return world._replace(tail=tail._replace(step=READ, batch=batch))
        else:
            following = max(tail.checkpoint, self._horizon(world))
            batch = self._committed(world, tail.checkpoint, below=following)
        return world._replace(tail=tail._replace(step=FOUND, batch=batch, following=following))

    def _settle(self, world: World) -> World:
        protocol, tail = self.protocol, world.tail
        if protocol.checkpoint_apart or protocol.checkpoint_in_postgres:
            return self._apply(world, tail._replace(step=APPLIED, batch=()))
        if protocol.unsettled != "last":
            return self._apply(world, Tail(), fresh=protocol.unsettled == "first", checkpoint=tail.following)
        settled = self._apply(world, tail, checkpoint=tail.following)
        if settled.tail.step == ASLEEP:
            return settled
        batch = self._committed(world, tail.checkpoint, above=self._horizon(world))
        return settled._replace(tail=tail._replace(step=SPECULATING, batch=batch))

    def _apply(self, world: World, tail: Tail, *, fresh: bool = False, checkpoint: int | None = None) -> World:
        """Write the tail's batch and move the marks with it; refused if the board is not the one that was read."""
        protocol, held = self.protocol, world.tail
        is_idle = not held.batch and checkpoint in (None, held.checkpoint)
        checks = protocol.checks_token and (protocol.heartbeat_checks_token or not is_idle)
        if checks and world.board.token != held.token:
            return world._replace(tail=Tail())
        board = self.put(world.board, held.batch)
        if fresh:
            board = board._replace(
                applied=held.committed if protocol.clock_read_first else world.committed,
                clock=held.server,
                run=world.server if protocol.stamp == "the taker" else held.server,
            )
        if checkpoint is not None and not is_idle:
            board = board._replace(checkpoint=checkpoint)
        applied = world.with_board(board)
        # Every batch moves the token. Told from the other side, or there would be no end of worlds: all boards that
        # may come back are of an older one.
        history = frozenset(old._replace(token=OLDER) for old in applied.history)
        return applied._replace(history=history, tail=tail)

    def _horizon(self, world: World) -> int:
        open_phases = (BEGUN, WRITTEN, BETWEEN) if self.protocol.puts_first else (BEGUN, WRITTEN)
        open_ = (xact for phase, xact in zip(world.phases, world.xacts, strict=True) if phase in open_phases)
        return min([*open_, world.next_xact])

    def _committed(
        self, world: World, checkpoint: int, *, above: int = 0, below: int | None = None
    ) -> tuple[Change, ...]:
        rows = enumerate(world.rows)
        first = max(checkpoint, above)
        return tuple(
            (user, row.version) for user, row in rows if first <= row.xact and (below is None or row.xact < below)
        )

    def _broken(self, world: World) -> Iterator[Promise]:
        if any(held < claimed for held, claimed in zip(world.board.held, self._claimed(world), strict=True)):
            yield "fresh"
        if world.is_at_rest and self._drained(world).board.held != world.committed:
            yield "converges"

    def _claimed(self, world: World) -> tuple[int, ...]:
        """What a reader takes to be in the mirror, by the mark and the clock of the server that is asked."""
        board = world.board
        if self.protocol.stamp != "nothing" and board.run != world.server:
            return (0,) * len(board.held)
        # By the clock of another server, which may be behind by any time, the mark is of this very moment.
        return board.applied if board.clock == world.server else world.committed

    def _drained(self, world: World) -> World:
        # A cycle that is under way may end in a refusal: only a whole one that changes nothing is the last.
        world, before = self._cycle_ended(world), None
        while before != world.board:
            before = world.board
            world = self._cycle_ended(self.recover(world))
        return world

    def _cycle_ended(self, world: World) -> World:
        while world.tail.step != ASLEEP:
            world = self.recover(world)
        return world
