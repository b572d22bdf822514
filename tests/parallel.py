"""
The suite in several processes: each has servers of its own, and a test marked `alone` has the machine to itself.

Every test holds a lock that the processes share; a test that measures time, or needs all cores, holds it exclusively.
Servers that DATABASE_URL and REDIS_URL name are flushed by the tests, so only one process uses them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from service.cpus import usable_cpus

EXTRA = 1
"""Processes beyond one for each core: many tests wait for a condition or a deadline."""


def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes `-n auto` starts; 0 runs the suite in one."""
    return 0 if os.environ.get("DATABASE_URL") and os.environ.get("REDIS_URL") else usable_cpus() + EXTRA


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool | None, bool | None]:
    """Hold the lock from a test's first fixture to its last; the time limit of the test begins inside."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    root = item.config.rootpath
    with _locked(root, fcntl.LOCK_EX) as gate, _locked(root / "tests", _kind(item)):
        # One by one through the gate: without it, tests that share the lock could keep an exclusive one out for ever.
        fcntl.flock(gate, fcntl.LOCK_UN)
        return (yield)


def _kind(item: pytest.Item) -> int:
    return fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH


@contextlib.contextmanager
def _locked(folder: Path, kind: int) -> Iterator[int]:
    """Lock a folder, which needs no file that would be left behind; the kernel unlocks it whatever happens."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, kind)
        yield held
    finally:
        os.close(held)
