"""Gathering calls into batches, over a store that the test holds back and lets go."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from typing import TYPE_CHECKING, Any

import pytest

from service.errors import NotReady, OutcomeUnknown, Overloaded, Unavailable
from service.ranking.coalesce import Coalescer

from .held_store import Store, called, reads, turns, writes

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.fixture
def store() -> Store:
    """A store that answers at once."""
    return Store()


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
