"""The page about benchmarks says what was measured, and judges it rightly."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import pytest

from service.arguments import Unusable
from service.benchmark import report, targets
from service.benchmark.results import (
    Environment,
    HttpResult,
    Memory,
    Operation,
    RankResult,
    Results,
    Sample,
    Size,
    Timing,
)
from service.benchmark.targets import Verdict
from tests.api.serving import ROOT

DOCS = ROOT / "docs"


def _sample(per_second: float, millis: float, failed: int = 0) -> Sample:
    return Sample(int(per_second), 1.0, failed, millis, millis, millis, millis)


def _timing(name: str, millis: float) -> Timing:
    return Timing(name, name, "rank", samples=[_sample(1, millis)])


def _environment() -> Environment:
    return Environment(
        cpu="C", cores=2, memory_gib=8, kernel="Linux 6", python="3.11", postgres="PostgreSQL 18", redis="Valkey 9",
        revision="abc", date="2026-01-01",
    )  # fmt: skip


def _http(*operations: Operation, users: int = 1_000_000) -> Results:
    result = HttpResult(
        environment=_environment(), users=users, workers=1, seconds=1, rounds=1, seed=1, operations=list(operations)
    )
    return Results(http=result)


def _rank(*sizes: Size) -> Results:
    return Results(rank=RankResult(environment=_environment(), seconds=1, rounds=1, seed=1, sizes=list(sizes)))


def _verdict(results: Results, key: str) -> Verdict:
    (found,) = (verdict for verdict in targets.verdicts(results) if verdict.key == key)
    return found


def test_the_page_is_what_the_script_makes_of_the_json() -> None:
    """Written anew by `scripts/benchmark.py report`."""
    results, notes = report.read(DOCS / "benchmarks")

    assert report.page(results, notes, "benchmarks") == (DOCS / "benchmarks.md").read_text()


def test_the_plots_of_the_page_are_there() -> None:
    for name in report.PLOTS:
        assert (DOCS / "benchmarks" / f"{name}.svg").exists()
        assert (DOCS / "benchmarks" / f"{name}.png").exists()


def test_percentiles_are_by_nearest_rank() -> None:
    sample = Sample.of([number / 1000 for number in range(1, 201)], seconds=2)

    assert (sample.p50_ms, sample.p95_ms, sample.p99_ms, sample.max_ms) == (100, 190, 198, 200)
    assert sample.per_second == 100


@pytest.mark.parametrize(
    ("per_second", "p99_ms", "failed", "met"),
    [(15_000, 8, 0, True), (14_999, 8, 0, False), (15_000, 8.1, 0, False), (15_000, 8, 1, False)],
)
def test_a_rate_must_be_reached_in_time_and_without_errors(
    per_second: float, p99_ms: float, failed: int, met: bool
) -> None:
    results = _http(Operation("rank", "r", 64, "wrk", samples=[_sample(per_second, p99_ms, failed)]))

    assert _verdict(results, "rank").met is met


def test_few_users_prove_nothing() -> None:
    results = _http(Operation("rank", "r", 64, "wrk", samples=[_sample(20_000, 1)]), users=999_999)

    assert _verdict(results, "rank") == Verdict(
        "rank",
        _verdict(results, "rank").target,
        "20,000 requests/s, p99 1.0 ms (with 999,999 users)",
        met=False,
    )


def test_the_median_of_the_rounds_counts() -> None:
    samples = [_sample(20_000, 1), _sample(1, 1), _sample(16_000, 1)]

    assert _verdict(_http(Operation("rank", "r", 64, "wrk", samples=samples)), "rank").met


def test_each_round_is_compared_with_the_bare_handler_of_that_round() -> None:
    """A machine that was slower for a while was so for both; the lowest read decides."""
    rank = Operation("rank", "r", 64, "wrk", samples=[_sample(60, 1), _sample(6, 1)])
    rank.bare = [_sample(100, 1), _sample(10, 1)]
    page = Operation("page-25", "p", 64, "wrk", samples=[_sample(49, 1)], bare=[_sample(100, 1)])

    assert _verdict(_http(rank), "ceiling").met
    assert not _verdict(_http(rank, page), "ceiling").met


@pytest.mark.parametrize(("counted_ms", "met"), [(30.0, True), (29.0, False)])
def test_the_store_is_compared_with_sql_at_a_million(counted_ms: float, met: bool) -> None:
    timings = [_timing("ladder-store", 0.1), _timing("sql-count", counted_ms)]
    million = Size(1_000_000, timings, Memory(1, 1, 1))

    assert _verdict(_rank(million), "against-sql").met is met
    assert _verdict(_rank(Size(1000, timings, Memory(1, 1, 1))), "against-sql").measured is None


@pytest.mark.parametrize(
    ("largest", "millis", "met"), [(10_000_000, 0.19, True), (10_000_000, 0.2, False), (1_000_000, 0.1, False)]
)
def test_growth_is_judged_from_ten_thousand_to_ten_million(largest: int, millis: float, met: bool) -> None:
    sizes = [
        Size(users, [_timing("ladder-store", time)], Memory(1, 1, 1))
        for users, time in [(10_000, 0.1), (largest, millis)]
    ]

    assert _verdict(_rank(*sizes), "growth").met is met


def test_memory_is_judged_by_the_largest_board() -> None:
    small = Size(10, [], Memory(board=10_000, users=10_000, bare=10_000))
    large = Size(100, [], Memory(board=10_000, users=6_000, bare=9_000))

    assert _verdict(_rank(large, small), "memory-ratio").met
    assert _verdict(_rank(large, small), "memory").met
    assert not _verdict(_rank(small), "memory-ratio").met
    assert not _verdict(_rank(small), "memory").met


def test_what_was_not_met_is_explained() -> None:
    results = _http(Operation("rank", "r", 64, "wrk", samples=[_sample(1, 1)]))
    table = targets.table(results, {"rank": "One core\nonly.", "user": "Later."})

    assert "| 1 requests/s, p99 1.0 ms | no: One core only. |" in table
    assert "|  | not measured: Later. |" in table


def test_a_page_needs_no_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that the plots stay as they are."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "service.benchmark.plots", raising=False)
    monkeypatch.delattr("service.benchmark.plots", raising=False)
    data = tmp_path / "data"
    shutil.copytree(DOCS / "benchmarks", data)
    options = argparse.Namespace(input=data, page=None, no_plots=False)

    assert "matplotlib is not installed here" in report.run(options, None)
    assert (tmp_path / "data.md").exists()


def test_plots_are_drawn_of_whatever_was_measured(tmp_path: Path) -> None:
    """The same numbers give the same bytes."""
    from service.benchmark import plots

    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        results, _ = report.read(DOCS / "benchmarks")
        plots.draw(results, tmp_path / folder)

    for name in report.PLOTS:
        assert (tmp_path / "one" / f"{name}.svg").read_bytes() == (tmp_path / "two" / f"{name}.svg").read_bytes()
        assert (tmp_path / "one" / f"{name}.png").stat().st_size > 10_000


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="nothing in"):
        report.read(tmp_path)


def test_json_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "http.json").write_text('{"users": "many"}')

    with pytest.raises(Unusable, match=r"http\.json is not what this version writes"):
        report.read(tmp_path)
