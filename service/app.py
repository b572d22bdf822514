"""The composition root: where the parts of the service are made and put together."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from litestar import Litestar, Request

from service import metrics, tasks
from service.api import (
    changes,
    docs,
    health,
    homepage,
    leaderboard,
    openapi,
    ranks,
    rating_history,
    ratings,
    stream,
    users,
)
from service.api import metrics as metrics_route
from service.api.access import Cors, Keys, Preflights
from service.api.admission import Admission
from service.api.audience import LONGEST, Audience
from service.api.client_address import ClientAddresses
from service.api.compression import Compression
from service.api.inputs import check_chunks, check_length, check_query, header_list
from service.api.lane import Lane
from service.api.options import options
from service.api.problems import HANDLERS
from service.api.public_path import PublicPaths
from service.api.rate_limit import RateLimit
from service.api.requests import Requests
from service.errors import Misconfigured, SchemaMismatch, explain
from service.limiter import Limiter
from service.ranking.answers import Demand
from service.ranking.ladder import Ladder
from service.ranking.sampling import Sampler
from service.ranking.tail import Tailer
from service.store import redis
from service.store.buckets import Buckets
from service.store.history import History
from service.store.inspection import Inspection
from service.store.ledger import Ledger
from service.store.migrate import migrate
from service.store.mirror import Mirror
from service.store.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from service.api.asgi import ASGIApp
    from service.settings import Settings

MAX_BODY_BYTES = 64 * 1024
_PREPARE_AGAIN_SECONDS = 1.0
_PREPARE_SECONDS = 1.0
_HANDLERS = (
    users.create_user,
    users.get_user,
    users.put_rating,
    users.search_users,
    changes.patch_rating,
    changes.put_ratings,
    changes.patch_user,
    changes.delete_user,
    leaderboard.get_leaderboard,
    stream.get_stream,
    ranks.get_rank,
    ranks.get_neighbors,
    ranks.post_ranks,
    rating_history.get_history,
    ratings.get_rating,
    ratings.get_distribution,
    health.get_health,
    health.get_live,
    health.get_ready,
    openapi.get_openapi,
    homepage.get_homepage,
    homepage.get_site_file,
    docs.get_docs,
    docs.get_style,
    docs.get_script,
    metrics_route.get_metrics,
)

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Ladder]:
    """
    Open both stores, keep the mirror equal to Postgres, and close everything in reverse.

    Neither store needs to be up: what can be answered is answered, and they are taken in when they come.
    """
    history = History()
    postgres = Postgres(settings.database_url, history=history)
    answers, feeding = redis.connect(settings.redis_url), redis.connect_feed(settings.redis_url)
    confirms = settings.board_takeover == "confirm"
    tailer = Tailer(settings.database_url, Mirror(feeding), history=history, confirms=confirms)
    ledger, mirror = Ledger(postgres), Mirror(answers)
    sampler = Sampler(
        ledger,
        mirror,
        Inspection(answers),
        source=lambda: tailer.believed,
        share=settings.check_sample,
    )
    ladder = Ladder(
        ledger,
        mirror,
        source=lambda: tailer.believed,
        cursor_key=settings.cursor_secret.encode() if settings.cursor_secret else None,
        withheld=lambda: tailer.withheld,
        interrupted=lambda: tailer.interrupted,
        served=sampler.saw,
    )
    background: list[asyncio.Task[None]] = []
    try:
        await postgres.open()
        background.append(asyncio.create_task(_prepare(settings, ladder)))
        # Usually done before the first request; not waited for when Postgres is away.
        await asyncio.wait(background, timeout=_PREPARE_SECONDS)
        background.append(asyncio.create_task(tailer.run()))
        background.append(asyncio.create_task(metrics.publish(postgres.publish)))
        yield ladder
    finally:
        await ladder.drain()
        await sampler.close()
        await tasks.end(background)
        await postgres.close()
        await answers.aclose()
        await feeding.aclose()


async def _prepare(settings: Settings, ladder: Ladder) -> None:
    """Bring the schema up to date as soon as Postgres is there, and fetch what is only there."""
    told = ""
    while True:
        try:
            if settings.migrate_on_start:
                await asyncio.to_thread(migrate, settings.database_url)
            await ladder.warm()
        except SchemaMismatch as error:
            # `python -m service` refuses to start then; here Postgres came up only later.
            _log.error("start.refused", reason=explain(error))
            return
        except Misconfigured as error:
            # Likewise; but a pooler may be set right while the service runs.
            reason = explain(error)
            (_log.debug if reason == told else _log.error)("start.refused", reason=reason)
            told = reason
            await asyncio.sleep(_PREPARE_AGAIN_SECONDS)
        except Exception as error:  # noqa: BLE001  whatever it is, the service goes on and it is tried again
            reason = explain(error)
            (_log.debug if reason == told else _log.warning)("start.waiting", reason=reason)
            told = reason
            await asyncio.sleep(_PREPARE_AGAIN_SECONDS)
        else:
            return


def create_app(
    settings: Settings, *, draining: asyncio.Event | None = None, ending: asyncio.Event | None = None
) -> ASGIApp:
    """
    Build the ASGI application; nothing is opened before its lifespan begins.

    When `draining` is set it is no longer ready, though it still serves; when `ending` is, streams end.
    """
    limiter, keys = _limiter(settings), Keys(settings.api_keys)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with opened(settings) as ladder:
            app.state.ladder = ladder
            app.state.draining = draining or asyncio.Event()
            app.state.scrapes = metrics_route.scrapes(ladder)
            app.state.audience = Audience(
                partial(ladder.top, limit=LONGEST, demand=Demand(no_cache=True)),
                most=settings.max_streams,
                heartbeat_seconds=settings.stream_heartbeat_seconds,
                ending=ending or asyncio.Event(),
            )
            watching = asyncio.create_task(app.state.audience.run())
            yield
            await tasks.end([watching])
            await app.state.scrapes.drain()
            if limiter:
                await limiter.close()

    app = Litestar(
        route_handlers=[*options(_HANDLERS), *_HANDLERS],
        lifespan=[lifespan],
        before_request=_checks(keys),
        exception_handlers=HANDLERS,
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=None,
        logging_config=None,
    )
    clients = ClientAddresses(settings.trusted_proxies)
    app.state.public_path = PublicPaths(clients, settings.root_path or "")
    app.state.openapi = openapi.Description(app)
    served: ASGIApp = Admission(Lane(Compression(app), lambda: app.state.ladder, keys), most=settings.max_in_flight)
    if settings.cors_allow_origins:
        served = Preflights(served)
    if limiter:
        # Outside: who asks too often takes nobody's turn, and a refusal for lack of turns tells of the limit too.
        served = RateLimit(served, limiter, clients)
    return Requests(Cors(served, settings.cors_allow_origins))


def _checks(keys: Keys) -> Callable[[Request[Any, Any, Any]], Awaitable[None]]:
    """Return what is asked of every request before its handler; as guards each would be run in a thread."""

    async def check(request: Request[Any, Any, Any]) -> None:
        handler = request.route_handler
        if handler.opt.get("writes"):
            keys.check(header_list(request, "authorization") or "")
        check_length(request, handler)
        check_query(request, handler)
        await check_chunks(request)

    return check


def _limiter(settings: Settings) -> Limiter | None:
    rate, burst = settings.rate_limit_per_second, settings.rate_limit_burst
    if not (rate and burst):
        return None
    client = redis.connect(settings.redis_url, answer_seconds=redis.LIMIT_SECONDS, connections=4)
    return Limiter(Buckets(client, rate=rate, burst=burst), rate=rate, burst=burst)
