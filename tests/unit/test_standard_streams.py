"""A program ends in a defined way wherever its standard input, output and error lead."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.api.serving import ROOT

PROGRAM = """
import os, sys
from service import standard_streams

def work():
    {work}
    return 3

sys.exit(standard_streams.run(work, program="prog"))
"""
FULL = b"prog: standard output cannot be written: No space left on device.\n"


def _run(work: str, streams: str, *, unbuffered: bool = False) -> subprocess.CompletedProcess[bytes]:
    """The program with its streams redirected by a shell; its exit code is that of the shell."""
    program = PROGRAM.format(work=work)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **({"PYTHONUNBUFFERED": "1"} if unbuffered else {})}
    command = ["bash", "-c", f'set -o pipefail; "$0" -S -c "$1" {streams}', sys.executable, program]
    return subprocess.run(command, capture_output=True, check=False, env=environment, timeout=20)


@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_reader_that_has_gone_changes_nothing(*, unbuffered: bool) -> None:
    """The exit code is that of the work, and there is no traceback."""
    # More than a pipe holds: it waits for the reader, who goes without a look at it.
    done = _run("print('a' * 1_000_000)", "| true", unbuffered=unbuffered)

    assert (3, b"") == (done.returncode, done.stderr)


@pytest.mark.parametrize("work", ["print('a')", "print('a' * 100_000)"])
def test_a_full_disk_is_told(work: str) -> None:
    """Whether it shows at once or when the last buffer is written."""
    done = _run(work, ">/dev/full")

    assert (1, FULL) == (done.returncode, done.stderr)


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "2> >(true)"])
def test_what_standard_error_does_not_take_is_dropped(streams: str) -> None:
    """The work goes on, and nothing of it gets into standard output."""
    done = _run("print('progress' * 10_000, file=sys.stderr, flush=True); print('data')", streams)

    assert (3, b"data\n") == (done.returncode, done.stdout)


def test_what_is_opened_does_not_become_a_standard_stream() -> None:
    """The numbers of closed streams are taken, so a print cannot get into a file or a connection."""
    work = "number = os.open('/dev/zero', os.O_RDONLY); print(number > 2, sys.stdin, sys.stdout, file=sys.stderr)"
    done = _run(work, "<&- 3>&1 1>&-")

    assert (3, b"True None None\n") == (done.returncode, done.stderr)


def test_an_exit_of_the_parser_is_the_exit_code() -> None:
    """And help that cannot be written is told."""
    parse = "import argparse; argparse.ArgumentParser(prog='prog').parse_args([{!r}])"

    assert 2 == _run(parse.format("--wrong"), "").returncode
    assert (0, b"") == ((done := _run(parse.format("--help"), "| true")).returncode, done.stderr)
    assert (1, FULL) == ((done := _run(parse.format("--help"), ">/dev/full")).returncode, done.stderr)
