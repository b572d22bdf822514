#!/usr/bin/env python3
"""
Turn one month of the FIDE rating list into a list of users: id,username,rating.

SPELLING_FILE is Scid's list of chess players, gzipped or not, which holds a rating a month for each. Debian has it
in the package scid-rating-data:

  apt-get download scid-rating-data
  dpkg-deb -x scid-rating-data_*.deb scid
  examples/fide.py scid/usr/share/scid/data/spelling.ssp --month 2021-01 > players.csv
  scripts/import_users.py players.csv

The id is the FIDE id, and the username the player's name made a handle that ends in the id: Carlsen-Magnus-1503014.
Players without a FIDE id, or without a rating in that month, are left out. The same file gives the same list.

exit codes: 0 done, 1 no player has a rating in that month, 2 wrong arguments
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FIRST_YEAR = 2013
"""Before it FIDE published less than one list a month."""
_USERNAME_LENGTH = 32
_YEAR = re.compile(r"(\d{4}):((?:\d+|\?)(?:,(?:\d+|\?)){0,11})")
_NOT_IN_HANDLE = re.compile(r"[^A-Za-z0-9]+")


class Month(NamedTuple):
    """A month of the calendar."""

    year: int
    month: int


class Player(NamedTuple):
    """A player with a rating in the month that was asked for."""

    fide_id: str
    name: str
    rating: int


def main() -> int:
    """Write the list to standard output; returns the exit code."""
    options = _options()
    written = 0
    if sys.stdout is None:
        print("fide.py: standard output is closed.", file=sys.stderr)
        return 2
    try:
        with _opened(options.file) as lines:
            print("id,username,rating")
            for player in players(lines, options.month):
                print(f"{player.fide_id},{handle(player)},{player.rating}")
                written += 1
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough; the interpreter's own last flush must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"fide.py: the list cannot be read or written: {error.strerror or error}.", file=sys.stderr)
        return 1
    if not written:
        print(f"fide.py: no player has a rating in {options.month.year}-{options.month.month:02}.", file=sys.stderr)
    return 0 if written else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "file", metavar="SPELLING_FILE", help="spelling.ssp or spelling.ssp.gz; - reads it from standard input"
    )
    parser.add_argument(
        "--month", metavar="YYYY-MM", required=True, type=_month, help=f"which list, {_FIRST_YEAR}-01 or later"
    )
    return parser.parse_args()


def _month(text: str) -> Month:
    found = re.fullmatch(r"([0-9]{4})-(0[1-9]|1[0-2])", text)
    if not found or int(found[1]) < _FIRST_YEAR:
        message = f"must be a month from {_FIRST_YEAR}-01 on, like 2021-01, not {text!r}"
        raise argparse.ArgumentTypeError(message)
    return Month(int(found[1]), int(found[2]))


def _opened(name: str) -> TextIO:
    if name == "-" and sys.stdin is None:
        print("fide.py: standard input is closed.", file=sys.stderr)
        raise SystemExit(2)
    try:
        file = cast("io.BufferedReader", sys.stdin.buffer) if name == "-" else Path(name).open("rb")  # noqa: SIM115  the caller closes it
    except OSError as error:
        print(f"fide.py: {name} cannot be read: {error.strerror}.", file=sys.stderr)
        raise SystemExit(2) from error
    packed = file.peek(2)[:2] == b"\x1f\x8b"
    return io.TextIOWrapper(gzip.GzipFile(fileobj=file) if packed else file, encoding="ascii", errors="replace")


def players(lines: Iterable[str], month: Month) -> Iterator[Player]:
    """
    Yield the players with a FIDE id and a rating in the month, in the order of the list.

    A player is a line that is not indented, followed by indented ones about them.
    """
    year = f"{month.year}:"
    name = fide_id = ""
    rating = 0
    for line in _player_section(lines):
        if not line[0].isspace():
            if fide_id and rating:
                yield Player(fide_id, name, rating)
            name, fide_id, rating = line.partition("#")[0].strip(), "", 0
        elif "%Bio FIDEID " in line:
            number = line.split()[-1]
            fide_id = number if number.isdigit() else ""
        elif "%Elo " in line and year in line:
            rating = rating or _rating(line, month)
    if fide_id and rating:
        yield Player(fide_id, name, rating)


def _player_section(lines: Iterable[str]) -> Iterator[str]:
    inside = False
    for line in lines:
        if line.startswith("@"):
            inside = line.startswith("@PLAYER")
        elif inside and line.strip() and not line.startswith("#"):
            yield line


def _rating(line: str, month: Month) -> int:
    """Return the rating of the month, 0 if these years do not tell it. What is not well-formed tells nothing."""
    for word in line.split()[1:]:
        found = _YEAR.fullmatch(word)
        if found and int(found[1]) == month.year:
            ratings = found[2].split(",")
            known = len(ratings) >= month.month and ratings[month.month - 1] != "?"
            return int(ratings[month.month - 1]) if known else 0
    return 0


def handle(player: Player) -> str:
    """Return the player's name as a username, cut so that the id at its end is whole."""
    words = _NOT_IN_HANDLE.sub("-", player.name).strip("-") or "player"
    room = _USERNAME_LENGTH - len(player.fide_id) - 1
    return f"{words[:room].rstrip('-')}-{player.fide_id}"


if __name__ == "__main__":
    sys.exit(main())
