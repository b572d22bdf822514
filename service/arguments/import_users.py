"""The command line of `ladder import`."""

from __future__ import annotations

import argparse

from service.arguments import file_name, stores

DESCRIPTION = """\
Import a list of users: create the new ones, update the known ones, and wait until the board shows them.

FILE is CSV in UTF-8, gzipped or not, separated by commas, semicolons or tabs, with the header id,username,rating in any
order and case; the column id may be missing, and its value may be empty; columns position and rank, as an export
writes them, are passed over. Lines are taken in their order:

  with an id      that user is created, or gets the rating and, if it differs, the username
  without an id   the user of that name (case does not count) gets the rating, or is created

A user who has that rating and username already is not touched. A line is refused, and the others are taken, when a
value is not exactly what the service accepts, when the username belongs to another user at the end of the list, or
when an earlier line is about the same user or the same username: the first one counts. So users may swap names, or pass
a name on, whatever the order of the lines: a line whose username another user still has waits for the end of the list
(at most 100,000 lines wait; one beyond them is refused). The refused lines go to FILE.rejects.csv (in a dry run to
FILE.dry-run.rejects.csv) with their numbers and the reasons. A list of which nothing was refused may be imported again,
which changes nothing.

Lines are committed 5,000 at a time, together with the position in the list. After an interruption, even a power
failure, the same command continues from that position, with the same result: same users, same counts, same file of
refused lines. It can do so for a week, while FILE has the same contents and the file of refused lines is there.
Otherwise, and for standard input, an import begins at the first line; users who are up to date are not touched.

A service may go on serving meanwhile. Writes to users on the current 5,000 lines wait a fraction of a second; others
do not wait. An import needs some 110 MB of memory, whatever the size of FILE.
"""
EPILOG = f"""\
{stores.HELP}

exit codes:
  0    every line was taken
  1    something failed that should not have
  2    wrong arguments or variables, or FILE is no list of users
  3    some lines were refused, all others were taken
  4    another process imports the same list
  5    a store is unavailable; what was committed stays, and importing the list again goes on
  6    refused, because the board would lose more than a tenth of its users: see --yes
  130  interrupted; likewise
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command can be told."""
    parser.add_argument("file", metavar="FILE", type=file_name, help="the list; - reads it from standard input")
    parser.add_argument(
        "--dry-run", action="store_true", help="check every line, say what would happen, change nothing"
    )
    parser.add_argument(
        "--rejects",
        metavar="PATH",
        type=file_name,
        help="where refused lines go (FILE.rejects.csv, in a dry run FILE.dry-run.rejects.csv; FILE is stdin for -);"
        " - writes them to standard output, and the result to standard error",
    )
    parser.add_argument(
        "--anew", action="store_true", help="begin at the first line, even if an import of this list did not end"
    )
    parser.add_argument(
        "--yes",
        action="store_true",
        help="let a board of an earlier history lose more than a tenth of its users, unasked",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON")
    stores.add_option(parser)
