"""Which board may be replaced without anybody asking."""

from __future__ import annotations

import pytest

from service.store.history import digest, succeeds

BOARD = "7:0000000A:5:name"


@pytest.mark.parametrize("source", ["7:0000000A:5:other", "7:0000000B:5:name", "7:00000010:5:x", "7:0000000A:5"])
def test_a_later_history_of_the_same_database_succeeds(source: str) -> None:
    """Promoted, restored, or put back."""
    assert succeeds(source, BOARD)


@pytest.mark.parametrize("source", ["8:0000000B:5:name", "7:0000000B:6:name", "7:00000009:5:name"])
def test_another_database_or_an_older_timeline_does_not(source: str) -> None:
    """It may be a wrong address, or a primary that was given up."""
    assert not succeeds(source, BOARD)


@pytest.mark.parametrize("board", ["", "another", "7:x:5:name", "7:0000000A"])
def test_what_is_no_source_has_no_say(board: str) -> None:
    """Somebody wrote it there."""
    assert succeeds(BOARD, board)


def test_digests_differ() -> None:
    """And have the length that the script expects."""
    assert (8, 8) == (len(digest(BOARD)), len(digest("")))
    assert digest(BOARD) != digest(f"{BOARD}2")
