"""Failpoints: off unless armed, armed only in a test, and each does what it is called."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service import failpoints
from service.errors import Unavailable
from service.failpoints import POINTS, Point, arm, reach
from service.model import Rated, User, UserId, Version
from service.ranking.guarded import GuardedMirror
from service.settings import SettingsError
from service.store import redis as redis_store
from service.store.mirror import Mirror

ROOT = Path(__file__).resolve().parents[2]
TESTING = {"LADDER_TESTING": "true"}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WRITE = Rated(User(UserId("ada"), "ada", 1500, Version(1), NOON, NOON), None)


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """Leave nothing armed to other tests."""
    yield
    arm({})


def armed(text: str) -> None:
    arm({**TESTING, "LADDER_FAILPOINTS": text})


async def outcomes(point: Point, times: int) -> str:
    """What becomes of those who come to a point: `.` goes on, `d` is to be dropped, `r` raises."""
    signs = ""
    for _ in range(times):
        try:
            signs += "d" if await reach(point) else "."
        except Unavailable:
            signs += "r"
    return signs


async def test_nothing_happens_unless_it_is_armed() -> None:
    arm({})
    assert ["."] * len(POINTS) == [await outcomes(point, 1) for point in POINTS]  # type: ignore[arg-type]  # all of them


async def test_what_is_armed_happens_there_alone() -> None:
    armed("before_put=drop;after_put=raise;load_mid=raise@3;before_commit=raise%0")

    assert "ddd" == await outcomes("before_put", 3)
    assert "rrr" == await outcomes("after_put", 3)
    assert "..r.." == await outcomes("load_mid", 5)
    assert "....." == await outcomes("before_commit", 5)
    assert "....." == await outcomes("after_commit", 5)


async def test_a_share_of_the_times() -> None:
    armed("before_put=drop%50")
    signs = await outcomes("before_put", 400)

    assert 100 < signs.count("d") < 300


async def test_a_sleeper_holds_up_nobody_else() -> None:
    armed("before_put=sleep:0.2@1")
    begun = time.monotonic()
    sleeper = asyncio.create_task(reach("before_put"))
    await asyncio.sleep(0)
    await reach("before_put")

    assert not sleeper.done()
    assert await sleeper is False
    assert 0.2 <= time.monotonic() - begun


async def test_arming_anew_forgets_what_was_armed() -> None:
    armed("load_mid=raise;before_put=drop@2")
    assert "." == await outcomes("before_put", 1)
    armed("before_put=drop@2")

    assert "." == await outcomes("load_mid", 1)
    assert ".d" == await outcomes("before_put", 2)


@pytest.mark.parametrize(("action", "number"), [("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)])
def test_a_signal_reaches_one_of_those_who_were_forked(action: str, number: signal.Signals) -> None:
    """The first to come to the point; whoever comes after it, in whichever process, goes on."""
    armed(f"after_commit={action}@1")

    def child() -> int:
        pid = os.fork()
        if pid == 0:
            asyncio.run(reach("after_commit"))
            os._exit(0)
        return pid

    first = child()
    _, status = os.waitpid(first, os.WUNTRACED)
    _, later = os.waitpid(child(), os.WUNTRACED)
    if action == "stop":
        assert number == os.WSTOPSIG(status)
        os.kill(first, signal.SIGCONT)
        _, end = os.waitpid(first, 0)
        assert 0 == end
    else:
        assert number == os.WTERMSIG(status)
    assert 0 == later


@pytest.mark.parametrize(
    "text",
    [
        "nowhere=kill",
        "after_commit",
        "after_commit=explode",
        "after_commit=drop",
        "before_put=drop;",
        "before_put=drop@0",
        "before_put=drop%much",
        "before_put=drop%1.2.3",
        "before_put=sleep",
        "before_put=sleep:-1",
        "before_put=Kill",
        " before_put=kill",
        "before_put=kill before_put=kill",
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    """In one line that names the variable; nothing is armed then."""
    with pytest.raises(SettingsError) as caught:
        armed(text)

    assert re.fullmatch(r"LADDER_FAILPOINTS (knows no|has a) [^\n]+\.", str(caught.value))
    assert {} == failpoints._armed


@pytest.mark.parametrize("testing", [None, "", "false", "True", "1"])
def test_a_service_does_not_start_with_failpoints_unless_it_is_a_test(testing: str | None) -> None:
    """Exit code 2 and one sentence, before any store is asked for."""
    said = {} if testing is None else {"LADDER_TESTING": testing}
    done = _start(LADDER_FAILPOINTS="before_put=drop", **said)

    assert 2 == done.returncode
    assert re.fullmatch(rb"LADDER_FAILPOINTS is set, [^\n]+\.\n", done.stderr)


def test_a_service_does_not_start_with_a_failpoint_that_it_does_not_know() -> None:
    done = _start(LADDER_FAILPOINTS="nowhere=kill", LADDER_TESTING="true")

    assert 2 == done.returncode
    assert re.fullmatch(rb"LADDER_FAILPOINTS knows no point 'nowhere'; [^\n]+\.\n", done.stderr)


def _start(**variables: str) -> subprocess.CompletedProcess[bytes]:
    stores = {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1"}
    return subprocess.run(
        [sys.executable, "-m", "service"], capture_output=True, cwd=ROOT, env={**stores, **variables}, check=False
    )


async def test_a_dropped_put_sends_nothing_and_is_no_failure_of_redis() -> None:
    """The mirror behind it cannot be reached at all, and nobody notices: the breaker counts no failure."""
    armed("before_put=drop")
    client = redis_store.connect("redis://127.0.0.1:1")
    guarded = GuardedMirror(Mirror(client), source=lambda: "")
    try:
        placed = [place for _ in range(10) for place in await guarded.put([WRITE])]
    finally:
        await client.aclose()

    assert {"pending"} == {place.outcome for place in placed}
    assert "closed" == guarded.breaker.state
