"""How long calls wait for their batch, how many may, and that under any timing the promises hold."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import Overloaded, Unavailable
from service.ranking.coalesce import Coalescer

from .held_store import Store, called, reads, turns, writes

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 2.0


@pytest.fixture
def store() -> Store:
    """A store that answers at once."""
    return Store()


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


# A batch alone


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
        run, shared=shared, keys=lambda item: item[:1], max_batch=max_batch, max_in_flight=max_in_flight, beside=beside
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
        waiting.append(asyncio.create_task(call((key, 0 if shared else number))))
        await turns(pause)
        if number in leaving:
            waiting[number // 2].cancel()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    await gathered.drain()

    expected = (type(None), asyncio.CancelledError) if leaving else type(None)
    assert all(isinstance(how, expected) for how in ended), ended
    assert (0, 0, {}, max_in_flight) == (
        len(gathered._waiting),
        len(gathered._joinable),
        gathered._turns._queues,
        gathered._free,
    )
    if not shared and not leaving:
        assert len(calls) == len(done)
        for key in "abc":
            assert sorted(item for item in done if item[0] == key) == [item for item in done if item[0] == key]
