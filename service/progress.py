"""How far a long task is, on standard error: a bar on a terminal, else a plain line every other second."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLAIN_SECONDS = 2.0


class Report(Protocol):
    """Called with how much is done, and in words."""

    def __call__(self, done: int, words: str) -> None:
        """Never raises and is cheap enough to be called for every chunk."""


class Pace:
    """
    How fast a task goes, from when this was made, and how long it will take.

    `unit` is what is counted, in the plural; `begun` of it was done before.
    """

    def __init__(self, unit: str, *, begun: int = 0) -> None:
        self._unit = unit
        self._begun = begun
        self._began_at = time.monotonic()

    def words(self, done: int, total: int) -> str:
        """Return how much is done of how much, how much a second, and the seconds left."""
        seconds = time.monotonic() - self._began_at
        rate = (done - self._begun) / seconds if seconds else 0.0
        left = max(total - done, 0) / rate if rate else 0
        return f"{done:,} of {total:,} {self._unit}, {rate:,.0f} {self._unit}/s, {left:.0f} s left"


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Report]:
    """Show the progress of the block towards `total`, None if nobody knows how much there is to do."""
    console = Console(stderr=True)
    # Asked of the file itself: rich also takes a variable's word for it.
    moves = sys.stderr.isatty() and not console.is_dumb_terminal
    with _bar(console, title, total) if moves else _lines(title, total) as report:
        yield report


@contextmanager
def _bar(console: Console, title: str, total: int | None) -> Iterator[Report]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, words="")

        def report(done: int, words: str) -> None:
            bar.update(task, completed=done, words=words)

        yield report


@contextmanager
def _lines(title: str, total: int | None) -> Iterator[Report]:
    last = f"{title} ..."
    due = time.monotonic() + _PLAIN_SECONDS

    def report(done: int, words: str) -> None:
        nonlocal last, due
        last = f"{title}: {words} ({done / total:.0%})" if total else f"{title}: {words}"
        if time.monotonic() >= due:
            print(last, file=sys.stderr, flush=True)  # noqa: T201  the operator's log
            due = time.monotonic() + _PLAIN_SECONDS

    yield report
    print(last, file=sys.stderr, flush=True)  # noqa: T201  the operator's log
