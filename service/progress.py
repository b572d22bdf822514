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
    """How fast a task goes, from when this was made, and how long it will take."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def words(self, done: int, total: int) -> str:
        """Return the items done a second, and the seconds left until `total`, in words."""
        seconds = time.monotonic() - self._began
        rate = done / seconds if seconds else 0.0
        return f"{rate:,.0f}/s, {max(total - done, 0) / rate if rate else 0:.0f} s left"


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
