"""The checker sees what it is there for: a sound history passes, and each violation is found by its own check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from .checker import CHECKS, check
from .history import Commit, Fault, History, Line, Op, Sample, Stall
from .timeline import Timeline


def op(**said: Any) -> Op:
    """A read by client 1 at node 0, from second 100 to 100.1."""
    base: dict[str, Any] = {"client": 1, "node": 0, "born": 1, "op": "user", "begin": 100.0, "outcome": "ok"}
    base["end"] = said.get("begin", 100.0) + 0.1
    return Op(**{**base, **said})


def write(user_id: str, version: int, rating: int, begin: float, **said: Any) -> Op:
    """An acknowledged rating."""
    shown = {"id": user_id, "version": version, "rating": rating, "asked": rating, "username": user_id * 3}
    return op(op="rate", begin=begin, status=200, **{**shown, **said})


def read(user_id: str, version: int, rating: int, rank: int, **said: Any) -> Op:
    """What the mirror said of a user, without lag."""
    shown = {"id": user_id, "version": version, "rating": rating, "rank": rank, "position": rank}
    return op(**{"status": 200, "username": user_id * 3, "source": "redis", "lag_ms": 0, **shown, **said})


def page(*rows: tuple[str, int, int, int], **said: Any) -> Op:
    """A page of (id, rating, position, rank)."""
    lines = tuple(Line(position, rank, user_id, user_id * 3, rating) for user_id, rating, position, rank in rows)
    shown = {"op": "page", "status": 200, "source": "redis", "lag_ms": 0, "offset": 0, "total": 3}
    return op(**{**shown, "rows": lines, **said})


def committed(user_id: str, version: int, rating: int | None, at: float) -> Commit:
    """A commit between `at` and a hundredth later."""
    return Commit(id=user_id, version=version, rating=rating, username=user_id * 3, not_before=at, not_after=at + 0.01)


def sample(at: float, *, era: str = "e", applied: float = 0.0, ready: bool = True, **versions: Any) -> Sample:
    """What the mirror held."""
    return Sample(era=era, begin=at, end=at + 0.01, ready=ready, applied=applied, versions=versions)


WHOLE: dict[str, Any] = {"a": 4, "b": 6, "c": 3}
WHOLE_PAGE = (("a", 1600, 1, 1), ("b", 1500, 2, 2), ("c", 1500, 3, 2))


def sound() -> History:
    """Three users; `a` is rated at 50, `b` at 98.5: nothing in it is wrong."""
    return History(
        commits=[
            committed("a", 1, 1400, 10),
            committed("b", 2, 1450, 10),
            committed("c", 3, 1500, 10),
            committed("a", 4, 1600, 50),
            committed("b", 6, 1500, 98.5),
        ],
        ops=[
            write("a", 4, 1600, 49.95, rank=1, position=1),
            read("a", 4, 1600, 1, begin=51.0),
            read("a", 4, 1600, 1, begin=60.0, client=2, token="a:4", node=1),
            write("b", 6, 1500, 98.45),
            op(op="rate", id="c", asked=1700, outcome="unknown", begin=20.0),
            op(op="rate", id="c", asked=1710, outcome="fail", status=503, begin=20.0),
            read("b", 6, 1500, 2),
            page(*WHOLE_PAGE),
        ],
        faults=[Fault(name="postgres crashed", kind="postgres", begin=19.0, end=21.0)],
        samples=[sample(49.0, a=1, b=2, c=3), sample(101.0, applied=100.8, **WHOLE)],
    )


def add(*ops: Op) -> Callable[[History], None]:
    """More operations."""
    return lambda history: history.ops.extend(ops)


def also(*commits: Commit) -> Callable[[History], None]:
    """More commits."""
    return lambda history: history.commits.extend(commits)


def seen(*samples: Sample) -> Callable[[History], None]:
    """More samples."""
    return lambda history: history.samples.extend(samples)


def both(*changes: Callable[[History], None]) -> Callable[[History], None]:
    """Several changes."""

    def change(history: History) -> None:
        for each in changes:
            each(history)

    return change


GONE = committed("c", 9, None, 99.9)

WRONG: list[tuple[str, Callable[[History], None]]] = [
    ("acknowledged_writes_are_kept", add(write("c", 8, 1800, 60))),
    ("acknowledged_writes_are_kept", add(write("a", 5, 1600, 50))),
    ("acknowledged_writes_are_kept", add(op(op="rate", id="a", asked=1600, outcome="fail", status=503, begin=49.0))),
    ("acknowledged_writes_are_kept", also(committed("a", 7, 1500, 70), committed("a", 8, 1600, 71))),
    ("acknowledged_writes_are_kept", add(op(op="create", id="a", asked=1600, username="half", outcome="unknown"))),
    ("final_states_keep_what_was_acknowledged", add(write("a", 5, 1600, 50))),
    ("tokens_are_honoured", add(read("a", 1, 1400, 3, token="a:4", lag_ms=60_000, begin=52.0))),
    ("tokens_are_honoured", add(op(id="a", status=404, token="a:4"))),
    ("tokens_are_honoured", add(page(("a", 1400, 3, 3), token="a:4", begin=51.0, lag_ms=9000, offset=2))),
    ("reads_with_tokens_are_monotonic", add(read("a", 1, 1400, 3, client=2, token="a:1", begin=61.0, lag_ms=30_000))),
    ("writers_read_their_writes_where_they_wrote", add(read("a", 1, 1400, 3, begin=52.0, lag_ms=5000))),
    ("nothing_is_invented", add(read("a", 4, 1601, 1))),
    ("nothing_is_invented", add(read("a", 5, 1600, 1))),
    ("nothing_is_invented", add(read("b", 6, 1500, 2, begin=98.0, lag_ms=0))),
    ("nothing_is_invented", add(page(("a", 1601, 1, 1), total=3))),
    ("the_mirror_never_falls_back", seen(sample(102.0, a=4, b=2, c=3))),
    ("the_mirror_never_falls_back", seen(sample(102.0, a=4, b=6))),
    ("pages_are_in_order", add(page(("b", 1500, 1, 1), ("a", 1600, 2, 2)))),
    ("pages_are_in_order", add(page(("c", 1500, 1, 1), ("b", 1500, 2, 1)))),
    ("pages_are_in_order", add(page(("a", 1600, 1, 1), ("b", 1500, 3, 3)))),
    ("pages_are_in_order", add(page(("a", 1600, 1, 1), ("b", 1500, 2, 2), ("c", 1500, 3, 3)))),
    ("pages_are_in_order", add(page(("a", 1600, 2, 1)))),
    ("pages_are_in_order", add(page(("a", 1600, 1, 2)))),
    ("pages_are_in_order", add(page(*WHOLE_PAGE, total=2))),
    ("pages_are_in_order", add(page(*WHOLE_PAGE, offset=None, after=(1600, "aaa")))),
    ("pages_are_in_order", add(page(("a", 1600, 1, 1), ("a", 1400, 2, 2), lag_ms=90_000))),
    ("ranks_are_of_their_time", add(read("b", 6, 1500, 1, position=2))),
    ("ranks_are_of_their_time", add(read("b", 6, 1500, 2, position=3))),
    ("ranks_are_of_their_time", add(read("b", 6, 1500, 1, position=2, source="postgres", lag_ms=None))),
    ("ranks_are_of_their_time", add(page(*WHOLE_PAGE, total=4))),
    ("ranks_are_of_their_time", add(page(("c", 1500, 3, 3), offset=2))),
    ("ranks_are_of_their_time", add(write("b", 6, 1500, 98.45, rank=3))),
    ("lags_are_honest", add(read("b", 2, 1450, 3, lag_ms=1000))),
    ("lags_are_honest", add(read("b", 2, 1450, 3, source="postgres", lag_ms=None))),
    ("lags_are_honest", add(page(("c", 1500, 2, 2), ("b", 1450, 3, 3), offset=1, lag_ms=1000))),
    ("the_freshness_stamp_is_honest", seen(sample(102.0, era="f", applied=98.7, a=4, b=2, c=3))),
    ("the_mirror_is_fresh_in_calm_times", seen(sample(102.0, era="f", ready=False, a=4, b=2, c=3))),
    ("the_mirror_is_fresh_in_calm_times", both(also(GONE), seen(sample(103.0, era="f", **WHOLE)))),
    ("nobody_waits_too_long", add(read("b", 6, 1500, 2, end=105.0))),
    ("nobody_waits_too_long", add(op(op="rate", id="a", outcome="unknown", asked=9, end=106.6))),
    ("reads_succeed_without_one_store", add(*[op(id="a", outcome="fail", status=503)] * 9)),
    ("nothing_fails_inside", add(op(id="a", outcome="unknown", status=500))),
]


def names(violations: list[str]) -> set[str]:
    """The checks that complained."""
    return {violation.partition(":")[0] for violation in violations}


def test_a_sound_history_passes() -> None:
    assert [] == check(sound())


@pytest.mark.parametrize(("name", "change"), WRONG, ids=[f"{name}-{number}" for number, (name, _) in enumerate(WRONG)])
def test_a_violation_is_found(name, change) -> None:
    history = sound()
    change(history)

    assert name in names(check(history))


def test_every_check_has_been_seen_to_fail() -> None:
    assert {each.__name__ for each in CHECKS} == {name for name, _ in WRONG}


@pytest.mark.parametrize("away", ["redis", "postgres"])
def test_one_store_away_is_no_excuse(away) -> None:
    """Reads (pages without Postgres) that fail while only one store is away are a violation, and no others."""
    history = sound()
    history.faults.append(Fault(name="away", kind=away, begin=200, end=210))
    history.ops += [op(op="page", outcome="fail", status=503, begin=205.0)] * 9

    assert {"reads_succeed_without_one_store"} == names(check(history))

    history.faults.append(Fault(name="both", kind="postgres", begin=200, end=210))
    history.faults.append(Fault(name="both", kind="redis", begin=200, end=210))

    assert [] == check(history)


def test_what_is_excused_is_excused() -> None:
    """A stall of the machine, a stopped node, a marked answer, a Redis that fell back, a board under attack."""
    history = sound()
    history.ops += [
        read("b", 6, 1500, 2, begin=120.0, end=128.0),
        read("b", 6, 1500, 2, begin=130.0, end=138.0),
        read("a", 1, 1400, 3, begin=52.0, lag_ms=5000, stale=True),
        read("b", 2, 1450, 3, begin=150.0, lag_ms=60_000),
        read("c", 3, 1500, 1, begin=160.0, lag_ms=0),
    ]
    history.stalls.append(Stall(begin=120.5, end=127.5))
    history.faults += [
        Fault(name="stop node", kind="node", node=0, begin=131, end=137),
        Fault(name="flushall", kind="redis", begin=149, end=149.1, rollback=True),
        Fault(name="delete users", kind="redis", begin=159, end=161, rollback=True, damage=True),
    ]

    assert [] == check(history)


def test_of_who_was_gone_before_a_load_a_mirror_may_know_nothing() -> None:
    history = sound()
    history.commits.append(committed("c", 9, None, 103.0))
    history.samples.append(sample(103.1, era="f", applied=102.9, a=4, b=6))

    assert [] == check(history)


def test_a_history_survives_the_disk(tmp_path: Path) -> None:
    history = sound()
    history.faults.append(Fault(name="x", kind="redis", begin=1, end=2))
    history.stalls.append(Stall(begin=1, end=2))
    history.commits.append(msgspec.structs.replace(GONE, not_after=None))
    history.write(tmp_path / "history.jsonl")

    assert history == History.read(tmp_path / "history.jsonl")


def test_a_mirror_may_mix_what_one_moment_never_showed() -> None:
    """`a` rises above 1500 before `b` falls below: never nobody at once, but a mirror may have only the fall."""
    timeline = Timeline(
        [
            committed("a", 1, 1400, 0), committed("b", 2, 1600, 0),
            committed("a", 3, 1600, 10), committed("b", 4, 1400, 12),
        ]
    )  # fmt: skip

    def above(state: Commit) -> bool:
        return (state.rating or 0) > 1500

    assert (0, 2) == timeline.mixed(9, 13, above)
    assert (1, 2) == timeline.at_once(9, 13, above)
    assert (1, 1) == timeline.at_once(9, 9.9, above)
    assert (2, 2) == timeline.at_once(10.5, 11.5, above)
    assert (1, 2) == timeline.at_once(11, 20, above)


def test_a_count_at_once_knows_who_came_and_who_went() -> None:
    timeline = Timeline([committed("a", 1, 1600, 5), committed("a", 2, None, 8), committed("b", 3, 1600, 5)])

    def exists(state: Commit) -> bool:
        return state.rating is not None

    assert (0, 0) == timeline.at_once(1, 4, exists)
    assert (0, 2) == timeline.at_once(1, 6, exists)
    assert (2, 2) == timeline.at_once(6, 7, exists)
    assert (1, 2) == timeline.at_once(6, 9, exists)
    assert (1, 1) == timeline.at_once(9, 10, exists)
