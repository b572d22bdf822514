"""
How much is taken on: so long a head, so many requests at once, so many that wait for their turn, so much time for a body
to arrive.

Beyond that a request is refused, which costs next to nothing: those that were admitted are answered in time whatever
comes on top, and the service is itself again as soon as the rush is over. A burst waits in a queue; when the queue
stays long there is none any more, because everybody would wait then and nobody be served sooner (the idea of CoDel,
RFC 8289).
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from service import metrics
from service.api.asgi import UNLIMITED, refuse
from service.api.head import head_refusal
from service.api.problems import OVERLOADED, OVERLOADED_DETAIL, RETRY_AFTER_SECONDS
from service.errors import Overloaded, TooSlow

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.api.asgi import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS = 10.0
"""From the request's head to the end of its body."""
AT_ONCE = 100
"""Requests that are worked on at a time: more are not done sooner, but each of them later. Measured on two cores."""
WAIT_SECONDS = 2.0
"""How long a request may wait for its turn."""
LATE_SECONDS = 0.5
"""How long it may take as a rule."""
BURST_SECONDS = 2.0
"""How long requests may be late until nobody is let wait any more."""
CALM_SECONDS = 1.0
"""How long nobody must have been refused until requests are let wait again."""
LINGER_BYTES = 2 * 1024 * 1024
LINGER_SECONDS = 1.0
"""How much of a body that nobody wants is read before it is refused, and for how long."""
_TELL_SECONDS = 1.0
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

_log = structlog.get_logger(__name__)


class Admission:
    """
    ASGI middleware that takes on up to `most` requests at a time and works on `at_once` of them.

    `in_flight` is how many there are, `arriving` how many there are beside whose body is still on its way: nothing
    is done for these, so clients that are slow, or pretend to be, take nobody's turn.
    """

    def __init__(self, app: ASGIApp, *, most: int, at_once: int = AT_ONCE, body_seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._most = most
        self._at_once = min(most, at_once)
        self._body_seconds = body_seconds
        self._working = 0
        self._queue: OrderedDict[asyncio.Future[bool], float] = OrderedDict()
        self._late_since = math.inf
        self._rush_until = -math.inf
        self.arriving = 0
        self._refused, self._told = 0, -_TELL_SECONDS

    @property
    def in_flight(self) -> int:
        """Requests that are worked on or wait for their turn."""
        return self._working + len(self._queue)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it: with 400 or 431 for its head, with 503 when there are too many."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif refusal := head_refusal(scope):
            if has_body(scope):
                await linger(scope, receive)
            await refuse(send, *refusal)
        elif scope["path"] in UNLIMITED:
            await self._app(scope, receive, send)
        elif has_body(scope):
            await self._serve_with_body(scope, receive, send)
        elif await self._has_turn():
            end_turn = self._once()
            # For an answer that may last for hours: with its beginning it has done its work.
            scope["state"]["end_turn"] = end_turn
            try:
                await self._app(scope, receive, send)
            finally:
                end_turn()
        else:
            self._shed(scope)
            await refuse(send, 503, OVERLOADED, [(b"retry-after", str(RETRY_AFTER_SECONDS).encode())])

    async def _serve_with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Whoever refuses it without its body needs no turn for that.
        deadline = asyncio.get_running_loop().time() + self._body_seconds
        is_whole = has_turn = False

        def end_turn() -> None:
            nonlocal has_turn
            if has_turn:
                has_turn = False
                self._end_turn()

        # As for a request without a body: an answer may last for hours.
        scope["state"]["end_turn"] = end_turn

        async def hurried() -> Message:
            nonlocal is_whole, has_turn
            # Behind the body there is only the client's leaving, which may take as long as it likes.
            if is_whole:
                return await receive()
            message = await self._arrived(scope, receive, deadline)
            is_whole = not message.get("more_body", False)
            if is_whole and message["type"] == "http.request":
                has_turn = await self._has_turn()
                if not has_turn:
                    self._shed(scope)
                    raise Overloaded(OVERLOADED_DETAIL)
            return message

        async def lingering(message: Message) -> None:
            nonlocal is_whole
            # A server that closes on a client which still sends makes the kernel throw its answer away: the client
            # would see a broken connection in place of the refusal.
            if message["type"] == "http.response.start" and not is_whole:
                await linger(scope, receive)
                is_whole = True
            await send(message)

        try:
            await self._app(scope, hurried, lingering)
        finally:
            end_turn()

    async def _arrived(self, scope: Scope, receive: Receive, deadline: float) -> Message:
        if self.arriving >= self._most:
            self._shed(scope)
            raise Overloaded(OVERLOADED_DETAIL)
        self.arriving += 1
        try:
            async with asyncio.timeout_at(deadline):
                return await receive()
        except TimeoutError:
            raise TooSlow from None
        finally:
            self.arriving -= 1

    async def _has_turn(self) -> bool:
        """Wait for a turn; False when there is none to be had in time."""
        if self._working < self._at_once:
            self._working += 1
            return True
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._is_rush(now) or self.in_flight >= self._most:
            return False
        turn: asyncio.Future[bool] = loop.create_future()
        self._queue[turn] = now
        timer = loop.call_later(WAIT_SECONDS, self._give_up, turn)
        try:
            return await turn
        except asyncio.CancelledError:
            self._queue.pop(turn, None)
            # Given and cancelled in the same moment: without this the turn would be nobody's for ever.
            if not turn.cancelled() and turn.result():
                self._end_turn()
            raise
        finally:
            timer.cancel()

    def _is_rush(self, now: float) -> bool:
        if now < self._rush_until:
            self._rush_until = now + CALM_SECONDS
            return True
        waiting_since = next(iter(self._queue.values()), now)
        if now - waiting_since < LATE_SECONDS:
            self._late_since = math.inf
            return False
        self._late_since = min(self._late_since, now)
        if now - self._late_since < BURST_SECONDS:
            return False
        self._late_since, self._rush_until = math.inf, now + CALM_SECONDS
        return True

    def _give_up(self, turn: asyncio.Future[bool]) -> None:
        if not turn.done():
            del self._queue[turn]
            turn.set_result(False)

    def _end_turn(self) -> None:
        while self._queue:
            turn, _ = self._queue.popitem(last=False)
            if not turn.done():
                turn.set_result(True)
                return
        self._working -= 1

    def _once(self) -> Callable[[], None]:
        """Return what ends a turn the first time it is called."""
        is_held = True

        def end() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._end_turn()

        return end

    def _shed(self, scope: Scope) -> None:
        # The request's own line in the log would make the rush dearer than it is.
        scope["state"]["quiet"] = True
        self._refused += 1
        metrics.SHED.inc()
        now = asyncio.get_running_loop().time()
        if now - self._told >= _TELL_SECONDS:
            _log.error("requests.shed", requests=self._refused, in_flight=self.in_flight)
            self._told, self._refused = now, 0


def has_body(scope: Scope) -> bool:
    """Whether a body may be on its way."""
    return scope["method"] in _WITH_BODY or any(name == b"transfer-encoding" for name, _ in scope["headers"])


async def linger(scope: Scope, receive: Receive) -> None:
    """Read what is left of a body that nobody wants, within bounds: before the answer to whoever still sends."""
    # Who expects to be told first has sent nothing, and must not be told to go on.
    if any(name == b"expect" for name, _ in scope["headers"]):
        return
    left = LINGER_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
