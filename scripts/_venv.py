"""
What every script in Python does first: read its command line, and go on in the project's virtual environment.

A script is started by whatever `python3` is on the PATH. If that is not the one of `.venv`, the environment is set up
should it be missing, and the script starts over in it. Only where there is no `.venv` and the dependencies can be
imported all the same, as in a container image, the script stays where it is. Help and wrong arguments are answered
before any of that.

It must run on every Python 3.8 or newer, and imports nothing but the standard library.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_VENV = ROOT / ".venv"
_START_OVER = 'set -eu; root=$0; . "$root/scripts/_setup.sh"; set_up requirements.lock; exec "$python" "$@"'

sys.path.insert(0, str(ROOT))


def run(command: str) -> int:
    """Run a subcommand of `ladder` with this script's arguments; returns the exit code."""
    # The path to these was just set.
    from service import standard_streams  # noqa: PLC0415
    from service.arguments import parse  # noqa: PLC0415

    name = Path(sys.argv[0]).name

    def work() -> int:
        options = parse(command, sys.argv[1:], program=name)
        enter()
        from service.commands import program  # noqa: PLC0415  not before it can be imported

        return program.run(command, options)

    return standard_streams.run(work, program=name)


def enter() -> None:
    """Return if this process runs in the right environment, else start over there."""
    if not _is_home():
        os.execv("/bin/sh", ["sh", "-c", _START_OVER, str(ROOT), *sys.argv])  # noqa: S606  the shell runs our own words only


def _is_home() -> bool:
    if _VENV.exists():
        return _VENV.samefile(sys.prefix)
    return importlib.util.find_spec("psycopg") is not None
