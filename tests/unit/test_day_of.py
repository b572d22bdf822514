"""Which day a run of the reconciliation writes to the history of ratings."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from service.ranking.rating_history import CLOSING, DEAR_SECONDS, REST, day_of
from service.store.rating_history import Taken

SATURDAY, SUNDAY = date(2026, 11, 28), date(2026, 11, 29)
MIDNIGHT = datetime(2026, 11, 29, tzinfo=UTC)


def after(**since: float) -> datetime:
    return MIDNIGHT + timedelta(**since)


def taken(seconds: float = 1, **since: float) -> Taken:
    return Taken(after(**since), seconds)


@pytest.mark.parametrize(
    ("now", "last", "day"),
    [
        (after(seconds=0), None, SATURDAY),
        (after(seconds=0), taken(minutes=-15), SATURDAY),
        (after(minutes=59), taken(hours=-50), SATURDAY),
        (after(minutes=15), taken(seconds=0), SUNDAY),
        (CLOSING + MIDNIGHT, taken(hours=-50), SUNDAY),
        (after(hours=9), taken(hours=-20), SUNDAY),
        (after(hours=23, minutes=59), taken(hours=23), SUNDAY),
    ],
    ids=["midnight", "after a run of that evening", "after a gap", "closed", "too late", "much too late", "evening"],
)
def test_the_first_run_after_midnight_ends_the_day(now: datetime, last: Taken | None, day: date) -> None:
    """Within the hour; every other run writes the day that it is."""
    assert day == day_of(now, last)


def test_what_was_dear_is_not_repeated_soon() -> None:
    """But for the end of the day."""
    dear = taken(DEAR_SECONDS + 1, hours=10)
    rest = timedelta(seconds=REST * dear.seconds)

    assert day_of(dear.at + rest / 2, dear) is None
    assert SUNDAY == day_of(dear.at + rest, dear)
    assert SUNDAY == day_of(dear.at + rest / 2, taken(DEAR_SECONDS, hours=10))
    assert SATURDAY == day_of(after(minutes=1), taken(3600, minutes=-1))


def test_a_clock_that_was_set_back_stops_nothing() -> None:
    """A snapshot that seems to be of the future is none."""
    assert SUNDAY == day_of(after(hours=10), taken(100, hours=11))
    assert SATURDAY == day_of(after(minutes=1), taken(minutes=2))
