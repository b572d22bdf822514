"""
A bare handler of the same server and framework that returns constant bytes: what the machine could do at most.

    python -m service.benchmark.ceiling PORT WORKERS DIRECTORY

Each file of the directory is served under its name, by a Litestar handler, with the server's settings of
`service/__main__.py`; `/asgi/<name>` is the same without a framework.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.server.mp import MPServer
from litestar import Litestar, Response, get
from litestar.handlers import HTTPRouteHandler

from service.__main__ import BACKLOG, MAX_HEADER_BYTES, room_for

_DIRECTORY = "LADDER_BENCHMARK_BODIES"
_CONNECTIONS = 4096


def application() -> object:
    """Return the ASGI application of a worker."""
    bodies = {file.name: file.read_bytes() for file in Path(os.environ[_DIRECTORY]).iterdir()}
    framework = Litestar([_handler(name, body) for name, body in bodies.items()], openapi_config=None)
    plain = {f"/asgi/{name}": _answer(body) for name, body in bodies.items()}

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        messages = plain.get(scope.get("path", ""))
        if messages is None:
            await framework(scope, receive, send)
            return
        for message in messages:
            await send(message)

    return serve


def _answer(body: bytes) -> list[dict[str, Any]]:
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return [
        {"type": "http.response.start", "status": 200, "headers": head},
        {"type": "http.response.body", "body": body},
    ]


def _handler(name: str, body: bytes) -> HTTPRouteHandler:
    @get(f"/{name}")
    async def constant() -> Response[bytes]:
        return Response(body, media_type="application/json")

    return constant


def main(port: str, workers: str, directory: str) -> None:
    """Serve until told to stop."""
    os.environ[_DIRECTORY] = directory
    if sys.platform == "linux":
        multiprocessing.set_start_method("fork", force=True)
    MPServer(
        "service.benchmark.ceiling:application",
        factory=True,
        address="127.0.0.1",
        port=int(port),
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        websockets=False,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(max_buffer_size=MAX_HEADER_BYTES),
        backpressure=room_for(_CONNECTIONS),
        backlog=BACKLOG,
        workers=int(workers),
        log_enabled=False,
    ).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
