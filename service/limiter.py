"""
How often a client may ask: a token bucket per client, shared by all processes through Redis.

Requests that come at the same time take their tokens in one call. Where the buckets are so large that a few
tokens do not matter, a process takes some ahead and asks again when they are spent. While Redis is away each
process keeps buckets of its own.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import structlog

from service.errors import Unavailable, explain
from service.ranking.coalesce import Coalescer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.store.buckets import Buckets

AHEAD_SECONDS = 0.1
"""How long tokens that were taken ahead may be spent."""
AWAY_SECONDS = 1.0
"""How long Redis is left alone after a call failed."""
OWN_BUCKETS = 10_000
"""Clients that a process keeps buckets of while Redis is away; the one that asked longest ago is forgotten."""

_log = structlog.get_logger(__name__)


class Verdict(NamedTuple):
    """Whether a request may pass, and how many more may right now."""

    passes: bool
    left: int


class Limiter:
    """Buckets that gain `rate` tokens a second and hold `burst`; `buckets` are those that all processes share."""

    def __init__(self, buckets: Buckets, *, rate: int, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst = rate, burst
        self._buckets = buckets
        self._clock = clock
        # At most a thousandth of a bucket, and a twentieth of what it gains meanwhile: none with 100 and 200.
        self._spare = min(burst // 1000, int(rate * AHEAD_SECONDS / 20))
        self._ahead: dict[str, tuple[int, int, float]] = {}  # client -> tokens in hand, left in Redis, until
        self._own = _OwnBuckets(rate, burst)
        self._away_until = -math.inf
        self._away = False
        self._taken: Coalescer[str, Verdict] = Coalescer(
            self._take, shared=False, max_batch=1000, max_in_flight=4, name="tokens"
        )

    async def __call__(self, client: str) -> Verdict:
        """Take a token for a request of this client; never raises for a store. O(1)."""
        now = self._clock()
        if self._away:
            self._try_again(client, now)
            return self._own.take(client, now)
        if self._spare and (held := self._ahead.get(client)):
            tokens, left, until = held
            if tokens and now < until:
                self._ahead[client] = (tokens - 1, left, until)
                return Verdict(True, left + tokens - 1)
        try:
            return await self._taken(client)
        except Exception:  # noqa: BLE001  `_take` has logged it: a limit that cannot be shared is kept by this process
            return self._own.take(client, now)

    def _try_again(self, client: str, now: float) -> None:
        # Beside the requests: none of them waits for a Redis that may still be away.
        if now < self._away_until:
            return
        self._away_until = now + AWAY_SECONDS
        probe = asyncio.ensure_future(self._taken(client))
        probe.add_done_callback(lambda done: done.cancelled() or done.exception())

    def retry_after(self) -> int:
        """Return the seconds after which an empty bucket holds a token, rounded up."""
        return max(1, math.ceil(1 / self.rate))

    def reset(self, left: int) -> int:
        """Return the seconds after which a bucket with that many tokens is full, rounded up."""
        return math.ceil((self.burst - left) / self.rate)

    async def close(self) -> None:
        """Let what is under way end, and hang up."""
        await self._taken.drain()
        await self._buckets.close()

    async def _take(self, clients: Sequence[str]) -> list[Verdict]:
        asked = Counter(clients)
        try:
            grants = await self._buckets.take(asked, spare=self._spare)
        except Exception as error:
            if not self._away:
                is_ours = not isinstance(error, Unavailable)
                _log.warning("rate_limit.local", reason=explain(error), exc_info=error if is_ours else None)
            self._away, self._away_until = True, self._clock() + AWAY_SECONDS
            raise
        if self._away:
            self._away = False
            _log.warning("rate_limit.shared")
        now = self._clock()
        remaining: dict[str, int] = {}
        for client, grant in grants.items():
            remaining[client] = min(grant.given, asked[client])
            if grant.given > asked[client]:
                self._keep(client, grant.given - asked[client], grant.left, now)
        verdicts = []
        for client in clients:
            remaining[client] -= 1
            passes = remaining[client] >= 0
            verdicts.append(Verdict(passes, grants[client].left + remaining[client] if passes else 0))
        return verdicts

    def _keep(self, client: str, tokens: int, left: int, now: float) -> None:
        if len(self._ahead) >= OWN_BUCKETS:
            self._ahead = {name: held for name, held in self._ahead.items() if held[2] > now}
        self._ahead[client] = (tokens, left, now + AHEAD_SECONDS)


class _OwnBuckets:
    """The same buckets in this process alone, a bounded number of them."""

    def __init__(self, rate: int, burst: int) -> None:
        self._token = 1 / rate
        self._burst = burst
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, client: str, now: float) -> Verdict:
        """Take a token."""
        full_at = max(self._full_at.pop(client, now), now)
        held = int((now + self._burst * self._token - full_at) / self._token + 1e-9)
        passes = held > 0
        self._full_at[client] = full_at + self._token * passes
        if len(self._full_at) > OWN_BUCKETS:
            self._full_at.popitem(last=False)
        return Verdict(passes, max(held - 1, 0))
