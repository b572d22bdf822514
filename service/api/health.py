"""Whether the service lives, can serve, and how well."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from litestar import Request, Response, get

import service
from service.api.answers import json_response
from service.api.operation import Operation, Says
from service.errors import LadderError, Unavailable
from service.ranking.breaker import BreakerState
from service.ranking.choice import FRESH_LAG_MS

if TYPE_CHECKING:
    from service.ranking.ladder import Ladder

_HEADERS = {"Cache-Control": "no-store"}


class PostgresHealth(msgspec.Struct):
    """Whether Postgres answered just now, and how many reads it is answering in the mirror's place."""

    status: Literal["up", "down"]
    fallback_in_flight: int


class RedisHealth(msgspec.Struct):
    """Whether Redis answered just now, and whether requests ask it or leave it alone."""

    status: Literal["up", "down"]
    breaker: BreakerState


class MirrorHealth(msgspec.Struct):
    """What the mirror says of itself; null where Redis could not be asked. `reason` is why it is not used, or null."""

    ready: bool
    lag_ms: int | None
    users: int | None
    source: str | None
    reason: str | None = None


class Health(msgspec.Struct):
    """`ok`; `degraded` while some reads can be served; `down` when none can."""

    status: Literal["ok", "degraded", "down"]
    version: str
    postgres: PostgresHealth
    redis: RedisHealth
    mirror: MirrorHealth


async def examine(ladder: Ladder) -> Health:
    """Ask both stores, within half a second."""
    postgres, state = await asyncio.gather(ladder.ping_ledger(), ladder.mirror_state(), return_exceptions=True)
    for outcome in (postgres, state):
        if isinstance(outcome, BaseException) and not isinstance(outcome, LadderError):
            raise outcome
    ledger_up, redis_up = postgres is None, not isinstance(state, BaseException)
    mirror = MirrorHealth(ready=False, lag_ms=None, users=None, source=None)
    if state is not None and not isinstance(state, BaseException):
        ready = ladder.trusts(state)
        mirror = MirrorHealth(ready, state.lag_ms if ready else None, state.users, state.source)
    mirror.reason = ladder.distrust(state) or _slowness(ladder, mirror) or None
    well = ledger_up and mirror.reason is None
    status: Literal["ok", "degraded", "down"] = "ok" if well else "degraded" if ledger_up or mirror.ready else "down"
    return Health(
        status,
        service.__version__,
        PostgresHealth("up" if ledger_up else "down", ladder.fallback.under_way),
        RedisHealth("up" if redis_up else "down", ladder.breaker),
        mirror,
    )


def _slowness(ladder: Ladder, mirror: MirrorHealth) -> str:
    if ladder.breaker != "closed":
        return "calls to Redis failed repeatedly, and it is left alone for a moment"
    if mirror.ready and mirror.lag_ms is None:
        return "how far the board lags is unknown, because another Redis than this one was fed last"
    if mirror.lag_ms is not None and mirror.lag_ms > FRESH_LAG_MS:
        return f"the board is {mirror.lag_ms / 1000:.1f} s behind Postgres"
    return ""


class Sign(msgspec.Struct):
    """A sign of life."""

    status: Literal["live", "ready"]


_WELL = Health(
    "ok",
    service.__version__,
    PostgresHealth("up", 0),
    RedisHealth("up", "closed"),
    MirrorHealth(ready=True, lag_ms=12, users=10_001, source="7521846033171484934:16384"),
)
_ILL = Health(
    "down",
    service.__version__,
    PostgresHealth("down", 0),
    RedisHealth("down", "open"),
    MirrorHealth(ready=False, lag_ms=None, users=None, source=None, reason="Redis did not answer in time"),
)
_HEALTH = Operation(
    tag="Health",
    summary="How well it is",
    answers={
        200: Says("Reads can be served.", _WELL, ("Cache-Control",)),
        503: Says("No read can be served.", _ILL, ("Cache-Control",)),
    },
)
_LIVE = Operation(
    tag="Health",
    summary="Whether it lives",
    answers={200: Says("It lives.", Sign("live"), ("Cache-Control",))},
)
_READY = Operation(
    tag="Health",
    summary="Whether it can serve",
    answers={200: Says("Some store can serve reads.", Sign("ready"), ("Cache-Control",))},
    problems=("unavailable",),
)


@get("/health", opt={"any_query": True, "doc": _HEALTH})
async def get_health(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the state of the service and its stores; 503 only when no read can be served."""
    health = await examine(request.app.state.ladder)
    if health.status == "down":
        _keep_quiet(request)
    return json_response(health, status=503 if health.status == "down" else 200, headers=_HEADERS)


@get("/health/live", opt={"any_query": True, "doc": _LIVE})
async def get_live() -> Response[bytes]:
    """Return at once: the event loop turns. Asks no store."""
    return json_response(Sign("live"), headers=_HEADERS)


@get("/health/ready", opt={"any_query": True, "doc": _READY})
async def get_ready(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return 200 while some store can serve reads, and the end has not been announced."""
    if request.app.state.draining.is_set():
        _keep_quiet(request)
        raise Unavailable("This process is about to end.")
    ladder: Ladder = request.app.state.ladder
    with suppress(LadderError):
        state = await ladder.mirror_state()
        if state is not None and ladder.trusts(state):
            return json_response(Sign("ready"), headers=_HEADERS)
    try:
        await ladder.ping_ledger()
    except Unavailable:
        _keep_quiet(request)
        raise
    return json_response(Sign("ready"), headers=_HEADERS)


def _keep_quiet(request: Request[Any, Any, Any]) -> None:
    """Log nothing of this 503: the log says what is wrong with a store, and a probe asks every few seconds."""
    request.scope["state"]["quiet"] = True
