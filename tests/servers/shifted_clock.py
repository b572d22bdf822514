"""A clock that is wrong: what a server is started with so that it tells another time than the others."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = syscall(SYS_gettimeofday, now, zone);
    const char *seconds = getenv("SHIFT_SECONDS");
    if (now && seconds) now->tv_sec += atoi(seconds);
    return result;
}
"""


def shifted(seconds: int, folder: Path) -> dict[str, str]:
    """The environment of a program whose clock is `seconds` ahead, or behind if negative; skips without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    library = folder / "shift.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(library)]
    made = subprocess.run(command, input=_SOURCE, text=True, capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"the C compiler cannot make a shared library: {made.stderr[-200:]}")
    return {**os.environ, "LD_PRELOAD": str(library), "SHIFT_SECONDS": str(seconds)}
