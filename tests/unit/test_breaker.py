"""When the breaker opens, for how long, and who may try again: by a clock that the test turns."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import LadderError, NotFound, NotReady, Overloaded, StoreBug, Unavailable
from service.ranking.breaker import (
    FAILURES_IN_A_ROW,
    FIRST_PAUSE_SECONDS,
    JITTER,
    LONGEST_PAUSE_SECONDS,
    WINDOW_CALLS,
    WINDOW_SECONDS,
    Breaker,
    BreakerState,
)


class Bench:
    """A breaker, its clock, and the states that it went through."""

    def __init__(self, jitter: float = 1.0) -> None:
        self.now = 1000.0
        self.states: list[BreakerState] = []
        self.breaker = Breaker(
            "the store", changed=self.states.append, clock=lambda: self.now, jitter=lambda *_: jitter
        )

    def call(self, outcome: BaseException | None = None) -> bool:
        """Make a call that ends so; returns whether it was let through."""
        called = False
        with contextlib.suppress(LadderError, asyncio.CancelledError), self.breaker.guarding():
            called = True
            if outcome is not None:
                raise outcome
        return called

    def state(self) -> str:
        """The present state; a call, so that the type checker does not think it still is what it was."""
        return self.breaker.state

    def fail(self, times: int = FAILURES_IN_A_ROW) -> None:
        """Make calls that fail."""
        for _ in range(times):
            assert self.call(Unavailable())


@pytest.fixture
def bench() -> Bench:
    """A closed breaker."""
    return Bench()


def test_it_opens_after_failures_in_a_row(bench: Bench) -> None:
    """Not one earlier, and then refuses without calling."""
    bench.fail(FAILURES_IN_A_ROW - 1)
    assert "closed" == bench.state()
    bench.fail(1)

    assert "open" == bench.state()
    assert not bench.call()


def test_a_success_between_starts_the_row_anew(bench: Bench) -> None:
    bench.fail(FAILURES_IN_A_ROW - 1)
    bench.call()
    bench.fail(FAILURES_IN_A_ROW - 1)

    assert "closed" == bench.state()


@pytest.mark.parametrize("answer", [NotReady(), NotFound(), StoreBug()])
def test_an_answer_is_not_a_failure(bench: Bench, answer: Exception) -> None:
    """A store that refuses works; above all a mirror that is loading."""
    for _ in range(3 * WINDOW_CALLS):
        assert bench.call(answer)

    assert "closed" == bench.state()


def test_our_own_lack_of_connections_is_no_failure(bench: Bench) -> None:
    """Nor does it close the breaker again: it says nothing about the store."""
    for _ in range(3 * WINDOW_CALLS):
        assert bench.call(Overloaded())
    assert "closed" == bench.state()
    bench.fail()
    bench.now += FIRST_PAUSE_SECONDS
    assert bench.call(Overloaded())

    assert "open" == bench.state()


def test_it_opens_when_more_than_half_fail(bench: Bench) -> None:
    """Every second of many calls may fail; one more may not."""
    for _ in range(WINDOW_CALLS):
        bench.call()
        bench.fail(1)
    assert "closed" == bench.state()
    bench.fail(1)

    assert "open" == bench.state()


def test_few_calls_have_no_share(bench: Bench) -> None:
    """Two of three failed, which says nothing yet."""
    for _ in range(WINDOW_CALLS // 3):
        bench.call()
        bench.fail(2)

    assert "closed" == bench.state()


def test_failures_age(bench: Bench) -> None:
    """What failed before the window began does not count."""
    for _ in range(WINDOW_CALLS):
        bench.call()
        bench.fail(1)
    bench.now += WINDOW_SECONDS
    bench.call()
    bench.fail(2)

    assert "closed" == bench.state()


def test_one_probe_decides(bench: Bench) -> None:
    """After the pause one call passes, and everybody else is refused until it is back."""
    bench.fail()
    bench.now += FIRST_PAUSE_SECONDS
    with bench.breaker.guarding():
        assert "half-open" == bench.state()
        assert not bench.call()

    assert bench.call()
    assert ["open", "half-open", "closed"] == bench.states


def test_the_pause_doubles_up_to_its_limit_and_starts_anew(bench: Bench) -> None:
    bench.fail()
    for pause in (1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        bench.now += pause - 0.01
        assert not bench.call()
        bench.now += 0.01
        bench.fail(1)
    bench.now += LONGEST_PAUSE_SECONDS
    assert bench.call()
    bench.fail()
    bench.now += FIRST_PAUSE_SECONDS

    assert bench.call()


@pytest.mark.parametrize("jitter", [1 - JITTER, 1 + JITTER])
def test_the_pause_is_spread(jitter: float) -> None:
    bench = Bench(jitter)
    bench.fail()
    bench.now += FIRST_PAUSE_SECONDS * jitter - 0.01
    assert not bench.call()
    bench.now += 0.01

    assert bench.call()


def test_a_probe_without_a_verdict_is_made_again(bench: Bench) -> None:
    """Its caller was cancelled: the next one is the probe, at once."""
    bench.fail()
    bench.now += FIRST_PAUSE_SECONDS
    bench.call(asyncio.CancelledError())
    assert "open" == bench.state()

    assert bench.call()
    assert "closed" == bench.state()


def test_what_a_call_of_an_earlier_time_brings_decides_nothing(bench: Bench) -> None:
    """A success from before it opened does not close it, nor does it shorten the pause."""
    with bench.breaker.guarding():
        bench.fail()
    assert "open" == bench.state()
    bench.now += FIRST_PAUSE_SECONDS
    with contextlib.suppress(Unavailable), bench.breaker.guarding():
        raise Unavailable

    assert "open" == bench.state()


@given(st.lists(st.tuples(st.sampled_from(["ok", "fail", "cancel"]), st.floats(0, 5))))
def test_it_never_stays_open(calls: list[tuple[str, float]]) -> None:
    """Whatever happened, a store that works again is used again within the longest pause."""
    bench = Bench()
    outcomes = {"ok": None, "fail": Unavailable(), "cancel": asyncio.CancelledError()}
    for outcome, seconds in calls:
        bench.call(outcomes[outcome])
        bench.now += seconds
    bench.now += LONGEST_PAUSE_SECONDS

    assert bench.call()
    assert "closed" == bench.state()
