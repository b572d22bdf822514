"""The command line of `ladder export`."""

from __future__ import annotations

import argparse

from service.arguments import file_name, stores
from service.checkout import IMPORT

DESCRIPTION = f"""\
Write the whole board as CSV, in rank order, as it is at one instant.

The header is position,rank,id,username,rating; ranks and positions are counted from one snapshot of Postgres, so that
concurrent writes do not change it, and Redis is not asked. It goes to standard output, or with --output into a
file that has its name only once it is whole.

{IMPORT} takes the file back as it is: it passes over position and rank, and creates the users under
the ids they had, or gives them the ratings and names they had. Users created since stay; times and versions are new.

An export may take as long as it needs and blocks no reader or writer, nor the mirror. Only the vacuum waits for it, so
it ends if standard output is not read for a minute.
"""
EPILOG = f"""\
{stores.HELP} REDIS_URL is not needed.

exit codes:
  0    the whole board was written
  1    something failed that should not have, for example a full disk
  2    wrong arguments or variables, or FILE cannot be written
  3    the reader of standard output stopped reading
  5    Postgres is unavailable, or ended the snapshot because the output was not read for a minute
  130  interrupted
Unless it is 0, FILE is as it was before.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command can be told."""
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=file_name,
        default="-",
        help="write to this file instead of standard output (-)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the result, and nothing else, as one line of JSON on standard error"
    )
    stores.add_option(parser)
