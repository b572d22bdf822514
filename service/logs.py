"""Structured logs: one JSON line per event, or readable lines on a terminal. Called once, never at import."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from service.settings import LogLevel

    Report = Callable[[BaseException, Mapping[str, object]], None]


# Without the frames' locals, which hold URLs with passwords. On a terminal structlog shows them unless it is told not to.
_terminal = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
_tracebacks = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def configure(level: LogLevel, report: Report | None = None) -> None:
    """
    Send structlog's events, and what libraries log, to standard error from `level` upwards.

    `report` is called with every error that is logged with its traceback, and the event that it is logged in.
    """
    severity = logging.getLevelNamesMapping()[level.upper()]
    terminal = sys.stderr.isatty()
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
        processors=[*shared, *reported, *rendered],
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
    # Libraries speak from warning upwards only: psycopg's pool logs each reconnection attempt below that.
    logging.basicConfig(handlers=[handler], level=max(severity, logging.WARNING), force=True)


def _reporting(report: Report) -> structlog.typing.Processor:
    def told(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        error = event.get("exc_info")
        error = sys.exc_info()[1] if error is True else error
        if isinstance(error, BaseException):
            report(error, event)
        return event

    return told
