"""`python -m service`: serve, configured by the environment alone. Exit code 2 when that is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import threading
import time
from typing import Any

import structlog
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings

from service import drain, failpoints, listening, sockets, standard_streams, worker_slots
from service.errors import LadderError, Misconfigured, Unavailable, as_sentence, explain
from service.logs import configure
from service.monitoring import reporter
from service.settings import Settings, SettingsError

STOP_SECONDS = 3
"""How long a worker may take to answer what it has begun, once it no longer listens."""
MAX_HEADER_BYTES = 64 * 1024
"""The server's own cut-off, for what never becomes a request; `api/requests.py` answers what does."""
BACKLOG = 4096
"""Connections that the kernel keeps until a worker takes them; it may allow fewer."""
GARBAGE_OBJECTS = 20_000
"""Objects in between two looks for what refers to itself; a request leaves none, so most looks find nothing."""
UNSENT_BYTES = 32 * 1024
"""What the kernel keeps of an answer that a client does not take; whoever writes it waits then."""
OTHER_FILES = 256
"""What a worker may open beside its connections: both stores, its libraries, its log."""
_WATCH_SECONDS = 0.5
_STOP = (signal.SIGTERM, signal.SIGINT)
_UNBLOCK_AFTER_SECONDS = 0.2
"""From the end of the start-up: a timer fires only when the event loop runs again, which is to serve."""


def application() -> object:
    """Return the ASGI application of a worker, built from the environment it inherited."""
    worker_slots.claim()
    from service.app import create_app  # noqa: PLC0415  only workers need the web framework

    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    settings = Settings.from_env(os.environ)
    configure(settings.log_level, reporter(settings.sentry_dsn) if settings.sentry_dsn else None)
    draining, ending = asyncio.Event(), asyncio.Event()
    app = create_app(settings, draining=draining, ending=ending)

    async def stoppable(scope: Any, receive: Any, send: Any) -> None:
        async def told(message: Any) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                loop = asyncio.get_running_loop()
                drain.listen(draining, ending, loop)
                # What has been made by now stays: looking through it again and again finds nothing to free.
                gc.collect()
                gc.freeze()
                gc.set_threshold(GARBAGE_OBJECTS, 20, 20)
                loop.call_later(_UNBLOCK_AFTER_SECONDS, sockets.limit_unsent, UNSENT_BYTES)
                loop.call_later(_UNBLOCK_AFTER_SECONDS, signal.pthread_sigmask, signal.SIG_UNBLOCK, _STOP)

        await app(scope, receive, told if scope["type"] == "lifespan" else send)

    return stoppable


def _end_with(parent: int) -> None:
    """End this worker when its supervisor was killed: it would keep the port, and nobody could stop it."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    if left := worker_slots.place():
        shutil.rmtree(left, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)


def room_for(connections: int) -> int:
    """Raise the limit of open files as far as needed and allowed; return how many of the connections fit below it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, min(connections, allowed - OTHER_FILES))


def main() -> int:
    """Check the settings, bring the schema up to date if Postgres is there, and serve until told to stop."""
    # The server sets handlers, which end an inherited "ignore", but a parent may have blocked the signals as well.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
    try:
        settings = Settings.from_env(os.environ)
        if settings.sentry_dsn:
            reporter(settings.sentry_dsn)
        failpoints.arm(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201  the operator's terminal, before any log is set up
        return 2
    if sentence := listening.refusal(settings.host, settings.port):
        print(sentence, file=sys.stderr)  # noqa: T201  likewise
        return 2
    configure(settings.log_level)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(worker_slots.directory())
        except OSError as error:
            # Nothing can be written anywhere: rather metrics of each worker alone than no service.
            structlog.get_logger(__name__).warning("metrics.apart", reason=str(error))
        return _serve(settings)


def _serve(settings: Settings) -> int:
    # Whatever counts chooses where to as it is imported: not before there is a place for it.
    from service.store import redis  # noqa: PLC0415
    from service.store.migrate import check, migrate  # noqa: PLC0415

    try:
        asyncio.run(redis.ping(settings.redis_url))
    except Misconfigured as error:
        print(as_sentence(explain(error)), file=sys.stderr)  # noqa: T201  the operator's terminal
        return 2
    except LadderError as error:
        structlog.get_logger(__name__).warning("start.waiting", reason=explain(error))
    try:
        (migrate if settings.migrate_on_start else check)(settings.database_url)
    except Misconfigured as error:
        print(as_sentence(explain(error)), file=sys.stderr)  # noqa: T201  likewise
        return 2
    except Unavailable as error:
        structlog.get_logger(__name__).warning("migrate.waiting", reason=explain(error))
    except LadderError as error:
        print(as_sentence(f"The schema could not be brought up to date: {explain(error)}"), file=sys.stderr)  # noqa: T201
        return 1
    # Python 3.14 would start workers from a server of its own; what is said below holds for those that are forked.
    if sys.platform == "linux":
        multiprocessing.set_start_method("fork", force=True)
    try:
        address = listening.address(settings.host, settings.port)
        own = listening.for_workers(settings.workers, settings.host, settings.port)
    except OSError as error:
        # It could be done a moment ago.
        print(f"Port {settings.port} on {settings.host} cannot be listened on: {error.strerror}.", file=sys.stderr)  # noqa: T201
        return 2
    connections = room_for(settings.max_connections)
    if connections < settings.max_connections:
        structlog.get_logger(__name__).warning("connections.limited", by="open files", connections=connections)
    # Until a worker serves and listens to it, the announcement of the end is nothing to it.
    signal.signal(drain.TOLD, signal.SIG_IGN)
    # A worker is forked with its supervisor's handler, and the server loses a signal that comes before its
    # event loop serves: until then it stays pending.
    os.register_at_fork(after_in_child=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _STOP))
    server = drain.DrainingServer(
        "service.__main__:application",
        factory=True,
        address=address,
        port=settings.port,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        websockets=False,
        # HTTP/2 knows no limit of a header block here, and would need TLS to be of use to a client.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            max_buffer_size=MAX_HEADER_BYTES, header_read_timeout=settings.idle_seconds * 1000
        ),
        # A worker takes no more connections than that, idle ones too: by default so few that anybody could take all.
        backpressure=connections,
        backlog=BACKLOG,
        workers=settings.workers,
        workers_kill_timeout=STOP_SECONDS,
        respawn_failed_workers=True,
        log_enabled=False,
    )
    server.notice = settings.drain_seconds
    server.own = own
    server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(standard_streams.run(main, program="ladder"))
