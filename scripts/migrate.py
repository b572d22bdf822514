#!/usr/bin/env python3
"""`ladder migrate`, run in the virtual environment of this checkout."""

import sys
from pathlib import Path

# Python leaves this directory out if it is told to (-P, -I, PYTHONSAFEPATH).
sys.path.insert(0, str(Path(__file__).resolve().parent))
import _venv

if __name__ == "__main__":
    sys.exit(_venv.run("migrate"))
