"""
Failpoints: places in the code where a test may have the service die, stop, fail or lose what it was about to send.

`LADDER_FAILPOINTS="after_commit=kill@3;before_put=drop"` arms two of them. Nothing is armed without it, and a point
then costs a look at an empty table. A service that serves people refuses to start with it: `LADDER_TESTING=true`
must say that this is a test.

`point=action` holds every time, `point=action@N` the Nth time only, and `point=action%P` in P percent of the times.
Times are counted by all workers together, so that `kill@1` kills one worker, and not also the one that replaces it.
The actions:

    kill            SIGKILL to this process, as by the kernel when memory runs out
    stop            SIGSTOP to this process; whoever tests sends SIGCONT
    raise           `Unavailable`, as from a store that does not answer
    sleep:SECONDS   this caller waits; the process goes on
    drop            at before_put alone: the put is not made, as if it had been lost on its way

Each time is logged as `failpoint`, with the process's id, before it happens.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import re
import signal
from typing import TYPE_CHECKING, Literal, get_args

import msgspec
import structlog

from service.errors import Unavailable
from service.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

Point = Literal[
    "before_commit",  # a write has its connection, and nothing was sent
    "after_commit",  # it is committed, and the mirror was not told
    "before_put",  # the same, within the deadline of the call to Redis and under the eyes of the breaker
    "after_put",  # Redis has said that it is in the mirror
    "tail_after_query",  # the tailer has read changes, and the mirror has not got them
    "tail_after_apply",  # the mirror has got them
    "load_mid",  # it has got some more rows of a load
    "reconcile_after_peek",  # suspects were read from Redis, and not yet from Postgres
    "reconcile_after_select",  # they were read from both
    "reconcile_before_fix",  # what to repair is decided, and not done
    "history_before_write",  # some more rows of a day's history are to be written
    "compaction_after_begin",  # the board refuses unknown users, and still has the fields of deleted ones
    "compaction_after_announcement",  # it is known which tombstones go, and none has gone
]
POINTS: tuple[str, ...] = get_args(Point)

_ACTION = re.compile(
    r"(?:(kill|stop|raise|drop)|sleep:([0-9]{1,4}(?:\.[0-9]+)?))(?:@([1-9][0-9]{0,8})|%([0-9.]{1,8}))?"
)

_log = structlog.get_logger(__name__)


class _Trap(msgspec.Struct, frozen=True):
    """What happens at a point, and when: at the `nth` time if that is not 0, and in `percent` of the times."""

    action: str
    seconds: float
    nth: int
    percent: float
    number: int


_armed: dict[str, _Trap] = {}
_times: memoryview = memoryview(b"")


def arm(env: Mapping[str, str]) -> None:
    """
    Arm what the environment names, and nothing else; raises `SettingsError`.

    To be called before workers are forked: they count together. Two that come to a point at the very same time may
    count as one.
    """
    global _times  # noqa: PLW0603  a point has no object of ours at hand that could carry it
    _armed.clear()
    text = env.get("LADDER_FAILPOINTS", "")
    if not text:
        return
    if env.get("LADDER_TESTING") != "true":
        message = (
            "LADDER_FAILPOINTS is set, which breaks a service on purpose: a test says LADDER_TESTING=true as well."
        )
        raise SettingsError(message)
    traps = dict(_read(item) for item in text.split(";"))
    _times = memoryview(mmap.mmap(-1, 8 * len(POINTS))).cast("Q")
    _armed.update(traps)


def _read(item: str) -> tuple[str, _Trap]:
    point, _, what = item.partition("=")
    if point not in POINTS:
        message = f"LADDER_FAILPOINTS knows no point {point!r}; there are {', '.join(POINTS)}."
        raise SettingsError(message)
    found = _ACTION.fullmatch(what)
    if found is None or (found[1] == "drop" and point != "before_put"):
        message = (
            f"LADDER_FAILPOINTS knows no action {what!r} for {point}; there are kill, stop, raise, sleep:SECONDS,"
            " and drop for before_put; and @N or %PERCENT behind it."
        )
        raise SettingsError(message)
    action, seconds, nth, percent = found.groups()
    try:
        share = float(percent or 100)
    except ValueError:
        message = f"LADDER_FAILPOINTS has a share of {percent!r} percent for {point}, which is no number."
        raise SettingsError(message) from None
    return point, _Trap(action or "sleep", float(seconds or 0), int(nth or 0), share, POINTS.index(point))


async def reach(point: Point) -> bool:
    """Do what is armed at this point, if anything is; True if the call that follows is to be left out."""
    trap = _armed.get(point)
    if trap is None:
        return False
    _times[trap.number] += 1
    if trap.nth not in (0, _times[trap.number]) or random.random() * 100 >= trap.percent:  # noqa: S311  no secret
        return False
    _log.warning("failpoint", point=point, action=trap.action, pid=os.getpid())
    if trap.action in ("kill", "stop"):
        os.kill(os.getpid(), signal.SIGKILL if trap.action == "kill" else signal.SIGSTOP)
    elif trap.action == "raise":
        message = f"failpoint {point}"
        raise Unavailable(message)
    await asyncio.sleep(trap.seconds)
    return trap.action == "drop"
