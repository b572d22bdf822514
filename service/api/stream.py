"""GET /leaderboard/stream: the top of the board as server-sent events, one whenever it has changed."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from typing import TYPE_CHECKING, Any

from litestar import Request, get
from litestar.types import ASGIApp

from service import metrics
from service.api.audience import LONGEST, event
from service.api.inputs import query
from service.api.leaderboard import PAGE
from service.api.operation import Operation, Says
from service.api.readers import whole

if TYPE_CHECKING:
    from service.api.asgi import Receive
    from service.api.audience import Audience, Listener

RETRY_MS = (1000, 3000)
"""When a browser comes back after its stream has ended: not all of them in the same moment."""
_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    # A proxy that gathers an answer before it passes it on would never pass this one on.
    (b"x-accel-buffering", b"no"),
]

_STREAM = Operation(
    tag="Leaderboard",
    summary="The top of the board, whenever it changes",
    headers=("Last-Event-ID",),
    answers={
        200: Says(
            "Events `leaderboard`, each with a page as GET /leaderboard has it; comments in between keep it alive.",
            "retry: 2000\n\n" + event(PAGE.items, PAGE.total, PAGE.next_cursor).text.decode(),
            ("Cache-Control",),
            "text/event-stream",
        )
    },
)
_QUERY = {"limit": whole(1, LONGEST, default=10, about="How many rows.")}


@get("/leaderboard/stream", opt={"query": _QUERY, "doc": _STREAM})
async def get_stream(request: Request[Any, Any, Any]) -> ASGIApp:
    """
    Follow the first rows of the board: an event at once, and one whenever they have changed, at most four a second.

    An event's `id` is its page's: who comes back with it is not sent a page that they have. The stream ends with the
    process that serves it, and `503` means that it has as many as it takes.
    """
    if request.scope["state"].get("is_head"):
        return _head
    return Stream(request.app.state.audience, query(request)["limit"], request.headers.get("last-event-id") or None)


async def _head(_: Any, __: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS]})
    await send({"type": "http.response.body", "body": b""})


class Stream:
    """The answer to one listener, as an ASGI application; it raises `Overloaded` instead if there are too many."""

    def __init__(self, audience: Audience, limit: int, seen: str | None) -> None:
        self._audience = audience
        self._limit = limit
        self._seen = seen

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send events until the client leaves, is cut off, or the process ends."""
        host, port = scope["client"]
        # The server gives the port as text, against the specification.
        listener = self._audience.join(self._limit, self._seen, (host, int(port)))
        # It has begun, which is all that a request has to do: it takes nobody's turn, and no log tells of its length.
        scope["state"]["quiet"] = True
        scope["state"].pop("end_turn", lambda: None)()
        metrics.stream_opened()
        leaving = asyncio.create_task(_left(receive, listener))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS]})
            said = b"retry: %d\n\n" % random.randint(*RETRY_MS) + listener.take()  # noqa: S311  nothing secret
            while not listener.is_over:
                listener.sending_since = asyncio.get_running_loop().time()
                await send({"type": "http.response.body", "body": said, "more_body": True})
                listener.sending_since = math.inf
                said = await listener.next()
            await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            if not listener.was_cut:
                raise
            if task := asyncio.current_task():
                task.uncancel()
        finally:
            self._audience.leave(listener)
            metrics.stream_ended()
            leaving.cancel()


async def _left(receive: Receive, listener: Listener) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
        listener.end()
