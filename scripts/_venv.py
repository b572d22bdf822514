"""
Importing this goes on in the project's virtual environment: the first line of every script in Python.

A script is started by whatever `python3` is on the PATH. If that is not the one of `.venv`, the environment is set up
should it be missing, and the script starts over in it. Only where there is no `.venv` and the dependencies can be
imported all the same, as in a container image, the script stays where it is.

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


def _is_home() -> bool:
    if _VENV.exists():
        return _VENV.samefile(sys.prefix)
    return importlib.util.find_spec("psycopg") is not None


if not _is_home():
    sys.stdout.flush()
    os.execv("/bin/sh", ["sh", "-c", _START_OVER, str(ROOT), *sys.argv])  # noqa: S606  the shell runs our own words only
sys.path.insert(0, str(ROOT))
