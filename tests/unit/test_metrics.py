"""What is counted under which labels, in a process of its own directory or none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from service import metrics
from service.api.admission import Admission
from service.api.rate_limit import RateLimit
from service.errors import Unavailable
from service.limiter import Verdict
from service.ranking.breaker import FAILURES_IN_A_ROW, Breaker
from service.ranking.coalesce import Coalescer
from tests.api.scrapes import Scrape


def now() -> Scrape:
    """What this process counted."""
    return Scrape(metrics.exposition([], as_openmetrics=False)[0].decode())


@pytest.mark.parametrize(
    ("route", "method", "status", "labels"),
    [
        ("/users/{user_id}", "GET", 200, ("/users/{user_id}", "GET", "200")),
        ("/users/{user_id}", "HEAD", 304, ("/users/{user_id}", "HEAD", "304")),
        (None, "GET", 404, ("none", "GET", "404")),
        ("", "GET", 400, ("none", "GET", "400")),
        ("/leaderboard", "BREW", 405, ("/leaderboard", "other", "405")),
        ("/leaderboard", "get", 405, ("/leaderboard", "other", "405")),
        ("/leaderboard", "GET", 0, ("/leaderboard", "GET", "none")),
    ],
)
def test_an_answer_is_counted_under_words_of_ours(
    route: str | None, method: str, status: int, labels: tuple[str, str, str]
) -> None:
    """A route's template, HTTP's methods, a status; never what a client made up."""
    named = dict(zip(("route", "method", "status"), labels, strict=True))
    before = now().total("ladder_http_requests_total", **named)
    metrics.answered(route, method, status, 0.001)

    assert before + 1 == now().total("ladder_http_requests_total", **named)


async def test_a_batch_is_counted_by_its_size() -> None:
    """Three calls that gather: one batch of three."""

    async def run(items: Sequence[int]) -> Sequence[int]:
        return items

    gathered: Coalescer[int, int] = Coalescer(run, shared=True, name="of-this-test")
    await asyncio.gather(*(gathered(number) for number in range(3)))
    found = now()

    assert (1, 3) == tuple(found.value(f"ladder_batch_size_{part}", name="of-this-test") for part in ("count", "sum"))


def test_a_breaker_tells_its_state() -> None:
    """From the start, and with every turn."""
    clock = [0.0]
    breaker = Breaker("Of-this-test", clock=lambda: clock[0], jitter=lambda low, _: low)

    def state() -> float | None:
        return now().value("ladder_breaker_state", store="of-this-test")

    assert 0 == state()
    for _ in range(FAILURES_IN_A_ROW):
        with pytest.raises(Unavailable), breaker.guarding():
            raise Unavailable("away")
    assert 2 == state()
    clock[0] = 5.0
    with breaker.guarding():
        assert 1 == state()
    assert 0 == state()


def test_a_call_is_timed_however_it_ends() -> None:
    """One that was cancelled did not fail."""
    for error in (None, Unavailable("away"), asyncio.CancelledError()):
        try:
            with metrics.redis_call("of-this-test"):
                if error:
                    raise error
        except (Unavailable, asyncio.CancelledError):
            pass
    found = now()

    assert 3 == found.value("ladder_redis_call_duration_seconds_count", operation="of-this-test")
    assert 1 == found.value("ladder_redis_errors_total", operation="of-this-test")


async def test_what_is_turned_away_is_counted() -> None:
    """Beyond what the service takes on, and beyond what a client may ask."""

    class Full:
        burst = 1

        async def __call__(self, _: object) -> Verdict:
            return Verdict(passes=False, left=0)

        def reset(self, _: int) -> int:
            return 1

        def retry_after(self) -> int:
            return 1

    async def ask(served: Any) -> None:
        scope = {"type": "http", "method": "GET", "path": "/leaderboard", "headers": [], "state": {}}

        async def sent(_: Any) -> None:
            pass

        await served(scope, None, sent)

    def counted() -> list[float]:
        found = now()
        return [found.total(f"ladder_{name}_total") for name in ("shed", "rate_limited")]

    before = counted()
    limiter: Any = Full()
    address: Any = str
    served: Any = ask
    await ask(Admission(served, most=0))
    assert [before[0] + 1, before[1]] == counted()
    await ask(RateLimit(served, limiter, address))
    assert [before[0] + 1, before[1] + 1] == counted()
