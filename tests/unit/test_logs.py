"""What a traceback in the log shows: where, never the values that were there."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from service.logs import configure


class Terminal(io.StringIO):
    """Standard error as an operator has it before him."""

    def isatty(self) -> bool:
        """As a terminal says."""
        return True


@pytest.fixture(params=[io.StringIO, Terminal])
def log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, to a file and to a terminal."""
    output: io.StringIO = request.param()
    handlers, level = list(logging.root.handlers), logging.root.level
    monkeypatch.setattr(sys, "stderr", output)
    configure("info")
    yield output
    structlog.reset_defaults()
    logging.basicConfig(handlers=handlers, level=level, force=True)


def fail(database_url: str) -> None:
    """Raise an error with a password among the variables of its frame."""
    raise ZeroDivisionError(len(database_url))


def test_a_traceback_shows_no_variables(log: io.StringIO) -> None:
    """Neither in our own events nor in those of a library: a password would stand there."""
    try:
        fail("postgresql://u:" + "geheim" + "@h/x")
    except ZeroDivisionError:
        structlog.get_logger("test").exception("request.failed")
        logging.getLogger("library").exception("failed")
    told = log.getvalue()

    assert told.count("ZeroDivisionError") >= 2
    assert "u:geheim" not in told
