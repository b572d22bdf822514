#!/usr/bin/env python3
"""
Bring the database's schema up to date, once: for a deployment in which services do not (MIGRATE_ON_START=false).

Safe to run at any time, and by several at once. Services of the release before go on working meanwhile.

Exit codes: 0 done, or nothing to do; 1 the schema is not of this product or was changed by hand; 2 wrong arguments
or variables; 5 Postgres cannot be reached.
"""

from __future__ import annotations

import _venv  # noqa: F401  goes on in the project's virtual environment

# isort: split
import argparse
import os
import sys

from service.errors import LadderError, Unavailable, explain
from service.store.migrate import migrate


def main(arguments: list[str]) -> int:
    """Apply what is pending, and say what that was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    url = os.environ.get("DATABASE_URL", "")
    if not url.startswith(("postgresql://", "postgres://")):
        print("DATABASE_URL must be a URL that starts with postgresql://.", file=sys.stderr)
        return 2
    try:
        applied = migrate(url)
    except Unavailable as error:
        print(f"{explain(error).rstrip('.')}.", file=sys.stderr)
        return 5
    except LadderError as error:
        print(f"The schema could not be brought up to date: {explain(error).rstrip('.')}.", file=sys.stderr)
        return 1
    print(f"applied {', '.join(applied)}" if applied else "the schema is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
