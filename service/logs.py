"""Structured logs: one JSON line per event, or readable lines on a terminal. Called once, never at import."""

from __future__ import annotations

import logging
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from service.errors import on_one_line
from service.reminders import Reminders

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from service.settings import LogLevel

    Report = Callable[[BaseException, Mapping[str, object]], None]


# Without the frames' locals, which hold URLs with passwords. On a terminal structlog shows them unless it is told not to.
_terminal = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
_tracebacks = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


_WAITING = ("migrate.waiting", "start.waiting", "tail.interrupted")
"""What is said again and again while a store is away, by every worker."""
_NO_WORDS = re.compile(r"Postgres (has no connection to spare|did not answer in time)")
"""Reasons that only follow from a failed connection; the error of the attempt to connect says more."""
_POOL_TRIED = re.compile(r"error connecting in '\w+': (.*)", re.DOTALL)
_reminders: Reminders | None = None
"""Made by the process that the workers are forked from."""


def configure(level: LogLevel, report: Report | None = None) -> None:
    """
    Send structlog's events, and what libraries log, to standard error from `level` upwards.

    `report` is called with every error that is logged with its traceback, and the event that it is logged in.
    """
    severity = logging.getLevelNamesMapping()[level.upper()]
    terminal = sys.stderr.isatty()
    global _reminders  # noqa: PLW0603  what it holds is this program's, as its standard error is
    if _reminders is None:
        # Without a directory for the file, every process logs every repetition.
        with suppress(OSError):
            _reminders = Reminders()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    reported: list[structlog.typing.Processor] = [_reporting(report)] if report else []
    rendered: list[structlog.typing.Processor] = (
        [_terminal] if terminal else [_tracebacks, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[_once_a_minute, *shared, *reported, *rendered],
        # Below the level a call returns before anything is formatted.
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    handler.addFilter(_is_news)
    # Libraries speak from warning upwards only.
    logging.basicConfig(handlers=[handler], level=max(severity, logging.WARNING), force=True)


def _once_a_minute(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    is_due = True
    if event["event"] in _WAITING:
        is_due = _is_due(str(event.get("reason", "")))
    elif event["event"] == "redis.breaker" and _reminders:
        # Each worker has one, and all open at the same failure.
        is_due = _reminders.is_due(f"redis.breaker {event.get('state')}")
    if not is_due:
        raise structlog.DropEvent
    return event


def _is_due(reason: str) -> bool:
    """Whether that reason was not said for a minute; the driver's first sentence tells it from others."""
    if _reminders is None:
        return True
    if _NO_WORDS.match(reason):
        return _reminders.is_due("Postgres")
    store, _, words = reason.partition(": ")
    is_due = _reminders.is_due((words or store).partition(". ")[0])
    if is_due and store.startswith("Postgres"):
        _reminders.is_due("Postgres")
    return is_due


def _is_news(record: logging.LogRecord) -> bool:
    """Whether what a library says was not said already: three pools try to connect, twice a second and more."""
    if record.name != "psycopg.pool":
        return True
    tried = _POOL_TRIED.fullmatch(record.getMessage())
    return _is_due(f"Postgres: {on_one_line(tried[1])}") if tried else "reconnection attempt" not in record.getMessage()


def _reporting(report: Report) -> structlog.typing.Processor:
    def told(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        error = event.get("exc_info")
        error = sys.exc_info()[1] if error is True else error
        if isinstance(error, BaseException):
            report(error, event)
        return event

    return told
