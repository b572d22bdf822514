"""Programs are started with the default action of signals, whatever the parent of the suite or of the product ignores."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ENDING

ROOT = Path(__file__).parents[2]
IGNORED = "import signal; print(*(int(signal.getsignal(n) == signal.SIG_IGN) for n in {numbers}))"
IGNORING = """
import os, signal, sys
for number in {numbers}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {numbers})
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
STOPPED = """
import os, signal, sys
from service.stop_request import Stopped, StopRequest
stop = StopRequest()
try:
    os.kill(os.getpid(), int(sys.argv[1]))
    print("deaf")
except Stopped:
    print("stopped")
"""


def ignoring(*arguments: str) -> str:
    """What Python prints when its parent ignores and blocks every signal that ends a program."""
    numbers = [int(number) for number in ENDING]
    command = [sys.executable, "-c", IGNORING.format(numbers=numbers), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def test_a_program_that_a_test_starts_ignores_no_signal() -> None:
    """Neither here nor in a suite that was started with all of them ignored, as a background job of a shell is in part."""
    program = IGNORED.format(numbers=[int(number) for number in ENDING])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ["0"] * len(ENDING) == done.stdout.split()
    if signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL:
        here = f"{Path(__file__).relative_to(ROOT)}::{test_a_program_that_a_test_starts_ignores_no_signal.__name__}"
        assert "1 passed" in ignoring("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", here)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_that_waits_for_its_stop_is_never_deaf(number: signal.Signals) -> None:
    """`scripts/server &` in a script starts with SIGINT ignored, and still ends at it."""
    assert "stopped\n" == ignoring("-c", STOPPED, str(int(number)))
