"""`python -m service`: serve, configured by the environment alone. Exit code 2 when that is wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

import structlog
from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings

from service.errors import LadderError, Unavailable
from service.logs import configure
from service.settings import Settings, SettingsError
from service.store.migrate import migrate

DRAIN_SECONDS = 5
MAX_HEADER_BYTES = 64 * 1024
"""Request line and headers together; a larger one is refused with 431 before the application sees it."""
_WATCH_SECONDS = 0.5
_STOP = (signal.SIGTERM, signal.SIGINT)
_SERVES_AFTER = 0.2


def application() -> object:
    """Return the ASGI application of a worker, built from the environment it inherited."""
    from service.app import create_app  # noqa: PLC0415  only workers need the web framework

    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    settings = Settings.from_env(os.environ)
    configure(settings.log_level)
    app = create_app(settings)

    async def stoppable(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            asyncio.get_running_loop().call_later(_SERVES_AFTER, signal.pthread_sigmask, signal.SIG_UNBLOCK, _STOP)
        await app(scope, receive, send)

    return stoppable


def _end_with(parent: int) -> None:
    """End this worker when its supervisor was killed: it would keep the port, and nobody could stop it."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _taken(host: str, port: int) -> str | None:
    """
    Return why the address cannot be listened on, None if it can.

    The server's own sockets share their port with each other, and would with another service's too:
    every second request would go astray, so a port that is in use is found out before.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return f"HOST {host}, PORT {port} cannot be listened on: {error.strerror or error}."
    return None


def main() -> int:
    """Check the settings, bring the schema up to date if Postgres is there, and serve until told to stop."""
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201  the operator's terminal, before any log is set up
        return 2
    if refusal := _taken(settings.host, settings.port):
        print(refusal, file=sys.stderr)  # noqa: T201  likewise
        return 2
    configure(settings.log_level)
    if settings.migrate_on_start:
        try:
            migrate(settings.database_url)
        except Unavailable as error:
            structlog.get_logger(__name__).warning("migrate.waiting", reason=str(error))
        except (LadderError, RuntimeError) as error:
            print(f"The schema could not be brought up to date: {error}.", file=sys.stderr)  # noqa: T201
            return 1
    # A worker is forked with its supervisor's handler, and the server loses a signal that comes before its
    # event loop serves: until then it stays pending.
    os.register_at_fork(after_in_child=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _STOP))
    Granian(
        "service.__main__:application",
        factory=True,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        websockets=False,
        # HTTP/2 knows no limit of a header block here, and would need TLS to be of use to a client.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(max_buffer_size=MAX_HEADER_BYTES),
        workers=settings.workers,
        workers_kill_timeout=DRAIN_SECONDS,
        respawn_failed_workers=True,
        log_enabled=False,
    ).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
