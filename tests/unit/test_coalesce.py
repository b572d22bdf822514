"""Gathering calls into batches, over a store that the test holds back and lets go."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import NotReady, OutcomeUnknown, Overloaded, Unavailable
from service.ranking.coalesce import Coalescer

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 2.0


class Store:
    """Answers each item in upper case; remembers the batches, and keeps them under way while it is held."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.failing: dict[str, Exception] = {}
        self.under_way = 0
        self.most_under_way = 0
        self._changed = asyncio.Condition()
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        """Keep batches under way from now on."""
        self._open.clear()

    def release(self) -> None:
        """Let them end."""
        self._open.set()

    async def begun(self, batches: int) -> None:
        """Return once so many batches have begun."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.batches) >= batches)

    async def run(self, items: Sequence[str]) -> list[str | Exception]:
        """Carry a batch out: fail with what is set for one of its items, or answer."""
        async with self._changed:
            self.batches.append(list(items))
            self._changed.notify_all()
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self._open.wait()
        finally:
            self.under_way -= 1
        for item in items:
            if item in self.failing:
                raise self.failing[item]
        return [item.upper() for item in items]


@pytest.fixture
def store() -> Store:
    """A store that answers at once."""
    return Store()


def reads(store: Store, **options: Any) -> Coalescer[str, str]:
    """Calls that may share a place."""
    return Coalescer(store.run, shared=True, **options)


def writes(store: Store, **options: Any) -> Coalescer[str, str]:
    """Calls that are each carried out; the first letter is the key."""
    return Coalescer(store.run, shared=False, key=lambda item: item[0], **options)


async def called(coalescer: Coalescer[str, str], *items: str) -> list[asyncio.Task[str]]:
    """Make calls, each in a task of its own; returns when all of them are waiting."""
    tasks = [asyncio.create_task(coalescer(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


async def turns(number: int) -> None:
    """Let the loop go round."""
    for _ in range(number):
        await asyncio.sleep(0)


# When a batch goes out


async def test_a_lone_call_waits_for_no_timer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes out and comes back within a few turns of the loop, and nothing was scheduled for later."""
    loop = asyncio.get_running_loop()
    timers: list[Any] = []
    monkeypatch.setattr(loop, "call_at", lambda *arguments, **_: timers.append(arguments))
    (call,) = await called(reads(store), "a")

    await turns(6)
    monkeypatch.undo()

    assert call.done()
    assert "A" == await call
    assert [] == timers


async def test_calls_of_one_turn_go_out_together(store: Store) -> None:
    """Requests that the loop reads in the same turn share a batch, in their order."""
    assert ["C", "A", "B"] == await asyncio.gather(*map(reads(store), "cab"))
    assert [["c", "a", "b"]] == store.batches


async def test_a_call_joins_the_next_batch_and_never_the_one_in_flight(store: Store) -> None:
    """Its answer comes from a store call that began after it, even for an item that is being asked for."""
    gathered = reads(store, max_in_flight=1)
    store.hold()
    first = await called(gathered, "a")
    await store.begun(1)

    late = await called(gathered, "a", "b", "a")
    store.release()

    assert ["A", "A", "B", "A"] == await asyncio.gather(*first, *late)
    assert [["a"], ["a", "b"]] == store.batches


async def test_equal_reads_that_wait_share_a_place(store: Store) -> None:
    """However many ask for it, an item is looked up once."""
    assert ["A"] * 500 == await asyncio.gather(*(map(reads(store), "a" * 500)))
    assert [["a"]] == store.batches


async def test_a_second_batch_goes_out_beside_the_first(store: Store) -> None:
    """As many are under way as allowed; what comes then gathers for the next."""
    gathered = reads(store, max_in_flight=2)
    store.hold()
    calls = []
    for batches, item in enumerate("ab", start=1):
        calls += await called(gathered, item)
        await store.begun(batches)
    for item in "cde":
        calls += await called(gathered, item)
    store.release()

    assert list("ABCDE") == await asyncio.gather(*calls)
    assert [["a"], ["b"], ["c", "d", "e"]] == store.batches
    assert 2 == store.most_under_way


@pytest.mark.parametrize("shared", [True, False])
async def test_a_batch_has_its_size(store: Store, shared: bool) -> None:
    """What does not fit goes out with the next, in the order of the calls."""
    gathered: Coalescer[str, str] = Coalescer(store.run, shared=shared, max_batch=4)

    assert list("ABCDEFGHIJ") == await asyncio.gather(*map(gathered, "abcdefghij"))
    assert [list("abcd"), list("efgh"), list("ij")] == store.batches


# Writes


async def test_writes_of_one_key_go_one_after_the_other(store: Store) -> None:
    """Never two in one batch or in two batches at a time, in the order they came; no other key waits for them."""
    gathered = writes(store)
    store.hold()
    calls = await called(gathered, "a1", "a2", "b1", "a3")
    await store.begun(1)
    calls += await called(gathered, "c1", "b2")
    await store.begun(2)

    assert [["a1", "b1"], ["c1"]] == store.batches

    store.release()

    assert ["A1", "A2", "B1", "A3", "C1", "B2"] == await asyncio.gather(*calls)
    assert [["a1", "b1"], ["c1"], ["a2", "b2"], ["a3"]] == store.batches


async def test_equal_writes_are_each_carried_out(store: Store) -> None:
    """Two requests to do the same are two writes."""
    assert ["A1", "A1"] == await asyncio.gather(*map(writes(store), ["a1", "a1"]))
    assert [["a1"], ["a1"]] == store.batches


async def test_a_full_batch_does_not_change_the_order_of_a_key(store: Store) -> None:
    """A write that found the batch full is not overtaken by a later one of its key."""
    calls = await called(writes(store, max_batch=1, max_in_flight=1), "a1", "b1", "b2", "a2")
    await asyncio.gather(*calls)

    assert [["a1"], ["b1"], ["b2"], ["a2"]] == store.batches


# What goes wrong


@pytest.mark.parametrize("shared", [True, False])
async def test_a_bad_item_fails_alone(store: Store, shared: bool) -> None:
    """A batch that fails is run again item by item: the others get their answers."""
    bad = store.failing["b"] = ValueError("b is bad")
    gathered: Coalescer[str, str] = Coalescer(store.run, shared=shared)

    assert ["A", bad, "C"] == await asyncio.gather(*map(gathered, "abc"), return_exceptions=True)
    assert [["a", "b", "c"], ["a"], ["b"], ["c"]] == store.batches


async def test_a_bad_item_that_came_alone_is_not_run_again(store: Store) -> None:
    """There is nobody to tell it apart from."""
    store.failing["a"] = ValueError("a is bad")

    with pytest.raises(ValueError, match="a is bad"):
        await reads(store)("a")
    assert [["a"]] == store.batches


@pytest.mark.parametrize("kind", [Unavailable, NotReady, Overloaded, OutcomeUnknown])
async def test_a_store_that_is_away_is_asked_once(store: Store, kind: type[Exception]) -> None:
    """All callers are told so; asking for each of them would be a herd, and a write may have been done."""
    away = store.failing["b"] = kind()

    assert [away] * 3 == await asyncio.gather(*map(reads(store), "abc"), return_exceptions=True)
    assert [["a", "b", "c"]] == store.batches


async def test_a_store_that_goes_away_meanwhile_fails_the_rest(store: Store) -> None:
    """While a failed batch is run item by item, each item has an outcome of its own."""
    bad, away = ValueError("a is bad"), Unavailable()
    store.failing.update({"a": bad, "c": away})

    assert [bad, "B", away] == await asyncio.gather(*map(reads(store), "abc"), return_exceptions=True)


async def test_an_error_in_place_of_a_result_is_the_items_own() -> None:
    """The batch was carried out, and is not run again."""
    runs = []

    async def run(items: Sequence[str]) -> list[str | Exception]:
        runs.append(items)
        return [KeyError(item) if item == "b" else item for item in items]

    gathered: Coalescer[str, str] = Coalescer(run, shared=True)
    first, second, third = await asyncio.gather(*map(gathered, "abc"), return_exceptions=True)

    assert ("a", "c") == (first, third)
    assert isinstance(second, KeyError)
    assert 1 == len(runs)


async def test_a_coalescer_works_on_after_a_failure(store: Store) -> None:
    """A failed batch gives its place and its keys back."""
    gathered = writes(store, max_in_flight=1)
    store.failing["a1"] = Unavailable()
    for _ in range(3):
        with pytest.raises(Unavailable):
            await gathered("a1")
    store.failing.clear()

    assert "A1" == await gathered("a1")


# Callers that leave


@pytest.mark.parametrize("shared", [True, False])
async def test_a_caller_that_leaves_does_not_take_the_batch_along(store: Store, shared: bool) -> None:
    """The others in it are answered, and what was asked for is done."""
    gathered: Coalescer[str, str] = Coalescer(store.run, shared=shared)
    store.hold()
    leaving, staying = await called(gathered, "a", "b")
    await store.begun(1)

    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    store.release()

    assert "B" == await staying
    assert [["a", "b"]] == store.batches


async def test_one_of_several_callers_of_an_item_may_leave(store: Store) -> None:
    """Whoever asked first does not own the answer."""
    store.hold()
    first, second = await called(reads(store), "a", "a")
    await store.begun(1)

    first.cancel()
    store.release()

    assert "A" == await second


async def test_a_write_is_done_though_its_caller_left_before_it_went_out(store: Store) -> None:
    """A write that was taken over is a promise, whether or not somebody waits for the answer."""
    gathered = writes(store)
    (leaving,) = await called(gathered, "a1")
    leaving.cancel()
    await gathered.drain()

    assert [["a1"]] == store.batches


async def test_an_error_that_nobody_waits_for_is_no_alarm(store: Store) -> None:
    """When all callers have left, the loop has no unretrieved exception to complain about."""
    alarms: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: alarms.append(context))
    store.failing["a"] = ValueError("a is bad")
    gathered = reads(store)
    store.hold()
    (leaving,) = await called(gathered, "a")
    await store.begun(1)

    leaving.cancel()
    store.release()
    await gathered.drain()
    del leaving
    gc.collect()

    assert [] == alarms


async def test_callers_of_a_batch_that_is_cancelled_do_not_hang(store: Store) -> None:
    """When the loop is torn down its tasks are cancelled, and whoever waits for one is told."""
    gathered = reads(store)
    store.hold()
    (call,) = await called(gathered, "a")
    await store.begun(1)

    for batch in gathered._batches:
        batch.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call


# Bounds


async def test_what_may_gather_is_bounded(store: Store) -> None:
    """Beyond it a call is refused at once; one that shares a place still joins, and there is room again later."""
    gathered = reads(store, max_in_flight=1, max_waiting=2)
    store.hold()
    calls = await called(gathered, "a")
    await store.begun(1)
    calls += await called(gathered, "b", "c")

    with pytest.raises(Overloaded):
        await gathered("d")
    calls += await called(gathered, "b")
    store.release()

    assert ["A", "B", "C", "B"] == await asyncio.gather(*calls)
    assert "D" == await gathered("d")


class Clock:
    """The loop's time, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        real, self.ahead = loop.time, 0.0
        monkeypatch.setattr(loop, "time", lambda: real() + self.ahead)


@pytest.mark.parametrize("shared", [True, False])
async def test_a_call_that_waited_too_long_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """It is not carried out when there is room at last: its caller has been told to come back later."""
    clock = Clock(monkeypatch)
    gathered: Coalescer[str, str] = Coalescer(store.run, shared=shared, max_in_flight=1, patience=PATIENCE)
    store.hold()
    (first,) = await called(gathered, "a")
    await store.begun(1)
    (late,) = await called(gathered, "b")
    clock.ahead += 2 * PATIENCE
    (fresh,) = await called(gathered, "c")
    store.release()

    assert ["A", "C"] == [await first, await fresh]
    with pytest.raises(Overloaded):
        await late
    assert [["a"], ["c"]] == store.batches
    assert "B" == await gathered("b")


async def test_a_write_behind_a_refused_one_of_its_key_goes_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is not carried out holds up nobody: its successor does not wait for another call to wake it."""
    clock = Clock(monkeypatch)
    gathered = writes(store, patience=PATIENCE)
    store.hold()
    (first,) = await called(gathered, "a1")
    await store.begun(1)
    (late,) = await called(gathered, "a2")
    clock.ahead += PATIENCE * 3 / 4
    (fresh,) = await called(gathered, "a3")
    await turns(3)  # whatever could go out has
    clock.ahead += PATIENCE * 3 / 4
    store.release()

    assert "A1" == await first
    with pytest.raises(Overloaded):
        await late
    await turns(10)

    assert [["a1"], ["a3"]] == store.batches
    assert "A3" == await fresh


# The end


async def test_draining_waits_for_all_that_was_called(store: Store) -> None:
    """What is under way and what still gathers behind it."""
    gathered = writes(store, max_in_flight=1)
    store.hold()
    calls = await called(gathered, "a1", "a2", "a3")
    await store.begun(1)
    draining = asyncio.create_task(gathered.drain())
    await asyncio.sleep(0)

    assert not draining.done()

    store.release()
    await draining

    assert all(call.done() for call in calls)
    assert [["a1"], ["a2"], ["a3"]] == store.batches


async def test_draining_an_idle_coalescer_returns(store: Store) -> None:
    """Before the first call, and after the last."""
    gathered = reads(store)
    await gathered.drain()
    await gathered("a")
    await gathered.drain()

    assert [["a"]] == store.batches


async def test_a_batch_inherits_nothing_from_its_callers() -> None:
    """What it logs belongs to none of the requests in it."""
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")

    async def run(items: Sequence[str]) -> list[str | Exception]:
        return [request.get() for _ in items]

    request.set("mine")
    gathered: Coalescer[str, str] = Coalescer(run, shared=True)

    assert "none" == await gathered("a")


# All of it


@settings(deadline=None)
@given(
    calls=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "c"])), max_size=30),
    slowness=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    shared=st.booleans(),
    max_batch=st.integers(1, 4),
    max_in_flight=st.integers(1, 3),
    beside=st.sampled_from([0.0, 0.0005]),
    leaving=st.sets(st.integers(0, 29), max_size=5),
    failing=st.sets(st.integers(0, 29), max_size=3),
)
async def test_whatever_the_timing_the_promises_hold(
    *,
    calls: list[tuple[int, str]],
    slowness: list[int],
    shared: bool,
    max_batch: int,
    max_in_flight: int,
    beside: float,
    leaving: set[int],
    failing: set[int],
) -> None:
    """
    Every caller gets the answer to its own item, from a batch that began after it asked; bounds are kept.

    Whoever leaves, and whichever batch fails, at the end nothing waits and every place is free.
    """
    batches: list[list[tuple[str, int]]] = []
    under_way: list[tuple[str, int]] = []
    done: list[tuple[str, int]] = []
    in_flight = 0

    async def run(items: Sequence[tuple[str, int]]) -> list[tuple[int, tuple[str, int]] | Exception]:
        nonlocal in_flight
        number = len(batches)
        batches.append(list(items))
        if not shared:
            keys = [key for key, _ in (*under_way, *items)]
            assert len(keys) == len(set(keys))
        in_flight += 1
        assert len(items) <= max_batch
        assert in_flight <= max_in_flight
        under_way.extend(items)
        await turns(slowness[number % len(slowness)])
        for item in items:
            under_way.remove(item)
        done.extend(items)
        in_flight -= 1
        if number in failing:
            raise Unavailable
        return [(number, item) for item in items]

    gathered: Coalescer[tuple[str, int], tuple[int, tuple[str, int]]] = Coalescer(
        run, shared=shared, key=lambda item: item[0], max_batch=max_batch, max_in_flight=max_in_flight, beside=beside
    )

    async def call(item: tuple[str, int]) -> None:
        begun = len(batches)
        with contextlib.suppress(Unavailable):
            batch, answered = await gathered(item)

            assert batch >= begun
            assert item[0] == answered[0]
            assert shared or item == answered

    waiting = []
    for number, (pause, key) in enumerate(calls):
        waiting.append(asyncio.create_task(call((key, number))))
        await turns(pause)
        if number in leaving:
            waiting[number // 2].cancel()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    await gathered.drain()

    expected = (type(None), asyncio.CancelledError) if leaving else type(None)
    assert all(isinstance(how, expected) for how in ended), ended
    assert (0, 0, set(), max_in_flight) == (
        len(gathered._waiting),
        len(gathered._joinable),
        gathered._busy,
        gathered._free,
    )
    if not shared and not leaving:
        assert len(calls) == len(done)
        for key in "abc":
            assert sorted(item for item in done if item[0] == key) == [item for item in done if item[0] == key]


async def test_a_batch_goes_alone_unless_it_is_held_up() -> None:
    """What comes meanwhile gathers in one batch; when the first takes too long, it goes out beside it."""
    batches: list[list[int]] = []
    held: asyncio.Event = asyncio.Event()

    async def run(items: Sequence[int]) -> Sequence[int]:
        batches.append(list(items))
        if 0 in items:
            await held.wait()
        return items

    gather = Coalescer(run, shared=False, max_batch=3, beside=0.05)
    first = asyncio.create_task(gather(0))
    await asyncio.sleep(0)
    begun = asyncio.get_running_loop().time()
    assert [1, 2] == list(await asyncio.gather(gather(1), gather(2)))

    assert [[0], [1, 2]] == batches
    assert asyncio.get_running_loop().time() - begun >= 0.04
    held.set()
    assert 0 == await first


async def test_a_full_batch_waits_for_none() -> None:
    """There is nothing to be gained by waiting."""
    held: asyncio.Event = asyncio.Event()

    async def run(items: Sequence[int]) -> Sequence[int]:
        if 0 in items:
            await held.wait()
        return items

    gather = Coalescer(run, shared=False, max_batch=2, beside=600)
    first = asyncio.create_task(gather(0))
    await asyncio.sleep(0)
    assert [1, 2] == list(await asyncio.gather(gather(1), gather(2)))
    held.set()
    assert 0 == await first
    assert 3 == await gather(3)
