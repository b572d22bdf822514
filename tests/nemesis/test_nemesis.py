"""Short runs of the nemesis against real processes: `python -m tests.nemesis` makes long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from .run import run
from .schedule import FAULTS, schedule

pytestmark = pytest.mark.alone

SECONDS = 5.0


@pytest.mark.servers
@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", range(2))
async def test_no_promise_is_broken(seed: int, tmp_path: Path) -> None:
    verdict = await run(seed, SECONDS, keep=tmp_path)

    assert [] == verdict.violations, f"{verdict}\n" + "\n".join(verdict.violations)
    assert len(verdict.history.ops) > 20
    assert len(verdict.history.commits) > 60
    assert any(fault.kind != "work" for fault in verdict.history.faults)


def test_one_seed_is_one_schedule() -> None:
    assert schedule(7, 30, nodes=3) == schedule(7, 30, nodes=3)
    assert schedule(7, 30, nodes=3) != schedule(8, 30, nodes=3)


def test_twenty_seeds_do_everything_many_times() -> None:
    steps = [step for seed in range(20) for step in schedule(seed, 30, nodes=3)]

    assert dict.fromkeys(FAULTS, True) == {name: sum(step.name == name for step in steps) >= 5 for name in FAULTS}
