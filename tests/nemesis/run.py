"""One run: a world, a storm, a nemesis; then quiet, and the verdict."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import msgspec
from redis.exceptions import RedisError

from service.errors import LadderError
from service.ranking.reconcile import LockBusy
from tests.ranking.equality import ledger_board, mirror_board
from tests.ranking.reconciling import counts, reconcile

from .actors import USERS, Auditor, Names, Sampler, clients, watch_the_clock, write_sql
from .checker import check
from .faults import Nemesis
from .history import Commit, History
from .schedule import schedule
from .world import World, world

NODES = 3
QUIET_SECONDS = 30.0


class Verdict(msgspec.Struct, frozen=True):
    """What was seen, and what of it must not be."""

    seed: int
    history: History
    violations: list[str]
    seconds: float

    def __str__(self) -> str:
        done = {outcome: sum(op.outcome == outcome for op in self.history.ops) for outcome in ("ok", "fail", "unknown")}
        kinds = " ".join(f"{number} {outcome}" for outcome, number in done.items())
        return (
            f"seed {self.seed}: {'FAILED' if self.violations else 'passed'}, {len(self.history.ops)} operations"
            f" ({kinds}), {len(self.history.commits)} commits, {len(self.history.faults)} faults,"
            f" {len(self.history.samples)} samples, {self.seconds:.0f} s"
        )


async def run(seed: int, seconds: float, *, keep: Path | None = None) -> Verdict:
    """Run a seed; a failing one leaves its history, and the nodes' logs, in a directory under `keep`."""
    begun = time.monotonic()
    history = History()
    async with world(nodes=NODES, users=USERS) as made:
        violations = await _storm(made, history, seed, seconds)
        violations += await asyncio.to_thread(check, history)
        if violations and keep:
            place = keep / f"seed{seed}"
            place.mkdir(parents=True, exist_ok=True)
            history.write(place / "history.jsonl")
            (place / "violations.txt").write_text("\n".join(violations) + "\n")
            for node in made.nodes:
                (place / node.log.name).write_bytes(node.log.read_bytes())
    return Verdict(seed, history, violations, time.monotonic() - begun)


async def _storm(made: World, history: History, seed: int, seconds: float) -> list[str]:
    auditor, sampler = Auditor(made), Sampler(made, history)
    names = Names(random.Random(f"names {seed}"))
    nemesis = Nemesis(made, history, sampler, seed)
    end = time.monotonic() + seconds
    calm = done = False
    async with asyncio.TaskGroup() as watchers:
        watching = [
            watchers.create_task(auditor.watch(lambda: done)),
            watchers.create_task(sampler.watch(lambda: done)),
            watchers.create_task(watch_the_clock(history.stalls, lambda: done)),
        ]
        async with asyncio.TaskGroup() as storm:
            storm.create_task(write_sql(made, names, lambda: calm, seed=seed))
            for client in clients(made, history, names):
                storm.create_task(client.live(lambda: calm))
            await nemesis.follow(schedule(seed, seconds, nodes=NODES))
            await asyncio.sleep(max(0.0, end - time.monotonic()))
            calm = True
        violations = await _convergence(made)
        done = True
    assert all(task.done() for task in watching)
    await auditor.look()
    history.commits += sorted(auditor.commits, key=lambda commit: (commit.id, commit.version))
    return violations + _against_table(made, history.commits)


async def _convergence(made: World) -> list[str]:
    """Wait until the mirror equals Postgres, by the tail alone; a full pass then finds nothing."""
    deadline = time.monotonic() + QUIET_SECONDS
    differ: str | None = "unknown"
    while differ:
        differ = await asyncio.to_thread(difference, made)
        if time.monotonic() > deadline:
            return [f"convergence: not after {QUIET_SECONDS} s: {differ}"]
        await asyncio.sleep(0.05)
    found: dict[str, int] | None = None
    while found is None:
        try:
            found = counts(await reconcile(made.settings))
        except (LockBusy, LadderError) as error:
            if time.monotonic() > deadline:
                return [f"convergence: no reconciliation: {error!r}"]
            await asyncio.sleep(0.1)
    differ = await asyncio.to_thread(difference, made)
    return [f"convergence: {what}" for what in (found and f"a full pass found {found}", differ) if what]


def difference(made: World) -> str | None:
    """Return how the mirror differs from Postgres: places, fields, or their number; None if it is ready and equal."""
    try:
        places, fields = ledger_board(made.settings)
        board, users, size = mirror_board(made.settings)
    except RedisError as error:
        return repr(error)
    if places != board:
        return f"board: {set(places) ^ set(board)}"
    if fields != users:
        return f"users: {set(fields.items()) ^ set(users.items())}"
    return None if size == len(board) else f"n is {size} and not {len(board)}"


def _against_table(made: World, commits: list[Commit]) -> list[str]:
    """The audit is only believed if it ends in what the table holds."""
    last = {commit.id: commit for commit in commits}
    fields = {user_id.encode(): commit.version for user_id, commit in last.items() if commit.rating is not None}
    _, held = ledger_board(made.settings)
    table = {user_id: int(value.partition(b"|")[0]) for user_id, value in held.items()}
    return [] if fields == table else [f"audit: the table holds {set(fields.items()) ^ set(table.items())}"]
