"""The headers that say what ranked, for answers of several sources."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from service.api.answers import rank_headers
from service.ranking.answers import Answer

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MIRROR = Answer("", "redis", lag_ms=140)
LATE = Answer("", "redis", lag_ms=2500, stale=True)
LEDGER = Answer("", "postgres")
COUNTED = Answer("", "histogram", as_of=NOON)


def test_each_source_says_what_it_knows() -> None:
    assert {"cache-control": "no-cache", "x-rank-source": "redis", "x-mirror-lag-ms": "140"} == rank_headers([MIRROR])
    assert {"cache-control": "no-cache", "x-rank-source": "postgres"} == rank_headers([LEDGER])
    assert {
        "cache-control": "no-cache",
        "x-rank-source": "histogram",
        "x-rank-as-of": "2026-01-01T12:00:00Z",
    } == rank_headers([COUNTED])


def test_of_several_the_worst_counts() -> None:
    """The least exact source, the longest lag, the oldest count, one that is stale."""
    older = Answer("", "histogram", as_of=(NOON - timedelta(seconds=1)).astimezone(timezone(timedelta(hours=2))))

    assert {
        "cache-control": "no-cache",
        "x-rank-source": "histogram",
        "x-rank-as-of": "2026-01-01T11:59:59Z",
        "x-mirror-lag-ms": "2500",
        "x-data-stale": "true",
    } == rank_headers([COUNTED, MIRROR, older, LATE, LEDGER])
    assert "postgres" == rank_headers([MIRROR, LEDGER])["x-rank-source"]


def test_an_unknown_lag_is_not_hidden_by_others() -> None:
    """It may be longer than any that is known."""
    unknown = Answer("", "redis", stale=True)

    assert {
        "cache-control": "no-cache",
        "x-rank-source": "redis",
        "x-data-stale": "true",
    } == rank_headers([MIRROR, unknown, LATE])


def test_of_none_no_mirror_is_claimed() -> None:
    assert {"cache-control": "no-cache", "x-rank-source": "postgres"} == rank_headers([])
