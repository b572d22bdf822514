"""The command line of `ladder migrate`."""

from __future__ import annotations

import argparse

DESCRIPTION = """\
Bring the database's schema up to date, once: for a deployment in which services do not (MIGRATE_ON_START=false).

Safe to run at any time, and by several at once. Services of the release before go on working meanwhile.

Exit codes: 0 done, or nothing to do; 1 the schema is not of this product or was changed by hand; 2 wrong arguments
or variables, or a database that cannot be used as it is; 5 Postgres cannot be reached; 130 interrupted. If the command
has to wait, it says on standard error what for.
"""
EPILOG = ""


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Nothing but the environment configures this command."""
