"""The command line of `ladder reconcile`."""

from __future__ import annotations

import argparse

from service.arguments import stores

DESCRIPTION = """\
Compare the board in Redis with the users in Postgres and repair what differs, while both are in use. Made for cron.

  --full          compare every user and every member of the board (the default), after writing the rank of each user
                  whose rating has changed to the history of ratings
  --incremental   bring over what was committed since, as a running service does by itself, and load the board if
                  there is none
  --rebase        after the restore of a dump: mark users with transactions of this Postgres, so that changes can be
                  followed; begins another history, for which the board is loaded anew, even if nothing was wrong

If the board would lose more than a tenth of its users, the command asks on a terminal first; without a terminal and
without --yes it changes nothing, exit code 6. It looks for this with --incremental if the board is of another history,
with --rebase, and with --full if --force is given or the database is empty.

What each kind of drift means and what to do about it is told in docs/operations.md.
"""
EPILOG = f"""\
{stores.HELP}

exit codes:
  0    in sync, or all drift was repaired
  1    something failed that should not have
  2    wrong arguments or variables
  3    drift was found and not repaired; with --fail-on-drift also if it was
  4    another reconciliation is running, or another process feeds the board and does not keep up
  5    a store is unavailable or the board was started anew; the next run goes on where this one ended
  6    refused, because it could destroy a good board
  130  interrupted; likewise resumable
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command can be told."""
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--full", action="store_true", help=argparse.SUPPRESS)
    mode.add_argument("--incremental", action="store_true", help="only bring over what was committed since")
    mode.add_argument(
        "--rebase",
        action="store_true",
        help="give users of a restored dump transactions of this Postgres; the board is loaded anew",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what is wrong, change nothing")
    parser.add_argument("--fail-on-drift", action="store_true", help="exit 3 for drift even if it was repaired")
    parser.add_argument("--force", action="store_true", help="repair however many users would be removed")
    parser.add_argument("--yes", action="store_true", help="let the board lose more than a tenth of its users, unasked")
    parser.add_argument("--allow-rewind", action="store_true", help="set users back to older versions of Postgres'")
    parser.add_argument("--lock-busy-ok", action="store_true", help="exit 0 if another one is running")
    parser.add_argument("--json", action="store_true", help="print the report as one line of JSON")
    stores.add_option(parser)
