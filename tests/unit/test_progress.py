"""How far a long task is, as a log shows it."""

from __future__ import annotations

import pytest

from service import progress


def test_a_log_gets_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no terminal each line stands alone, and the last says how it ended; standard output stays clean."""
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0)
    with progress.progress("Users", 200) as report:
        report(100, "one")
        report(200, "two")
    with progress.progress("Board", None) as report:
        report(5, "five")
    with progress.progress("Nothing", 10):
        pass

    out, err = capsys.readouterr()
    assert "" == out
    assert [
        "Users: one (50%)", "Users: two (100%)", "Board: five", "Nothing ...",
    ] == list(dict.fromkeys(err.splitlines()))  # fmt: skip


def test_a_task_that_fails_is_not_reported_as_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """The error is the last word."""

    def fail() -> None:
        with progress.progress("Users", 200) as report:
            report(100, "one")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert "" == capsys.readouterr().err


def test_a_pace_names_what_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not take what was done before for its own."""
    moments = iter((100.0, 102.0))
    monkeypatch.setattr("time.monotonic", lambda: next(moments))
    pace = progress.Pace("users", begun=4000)

    assert "10,000 of 13,000 users, 3,000 users/s, 1 s left" == pace.words(10_000, 13_000)
