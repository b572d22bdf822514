"""`ladder migrate`: bring the database's schema up to date."""

from __future__ import annotations

import argparse
import os
import sys

from service.errors import LadderError, Unavailable, explain
from service.store.migrate import migrate


def run(_: argparse.Namespace) -> int:
    """Apply what is pending, and say what that was; returns the exit code."""
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
