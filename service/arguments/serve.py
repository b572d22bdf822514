"""The command line of `ladder serve`, which scripts/server runs in a checkout."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from service.arguments import directory, stores

if TYPE_CHECKING:
    from typing import NoReturn

DESCRIPTION = """\
Run Ladder until Ctrl-C, with the stores that DATABASE_URL and REDIS_URL name or, when these are not set, with a
PostgreSQL and a Valkey of its own.
"""
EPILOG = ""
EMBEDDED_DEMO_USERS = 10_000
"""Made-up users in a store of its own, unless told otherwise."""
_MAX_DEMO_USERS = 100_000_000
_DEMO_MATCHES, _MAX_DEMO_MATCHES = 3, 1000


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage, because it ends up in a server's log."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: {message}.\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command can be told."""
    # Host, port and workers are checked where every variable is: they reach the service as HOST, PORT and WORKERS.
    variables = os.environ
    parser.add_argument(
        "--host",
        metavar="H",
        default=variables.get("HOST") or "127.0.0.1",
        help="address or name to listen on; localhost is both 127.0.0.1 and ::1 (HOST, now %(default)s)",
    )
    parser.add_argument(
        "--port", metavar="P", default=variables.get("PORT") or "8080", help="port to listen on (PORT, now %(default)s)"
    )
    parser.add_argument(
        "--data", metavar="DIR", type=directory, help=f"where its own stores keep data ({stores.DEFAULT})"
    )
    parser.add_argument(
        "--demo-users",
        metavar="N",
        type=_count,
        help=f"fill an empty database with N made-up users ({EMBEDDED_DEMO_USERS} in a store of its own, else 0)",
    )
    parser.add_argument(
        "--demo-traffic",
        metavar="N",
        type=_matches,
        nargs="?",
        const=_DEMO_MATCHES,
        help=f"let the users play N matches a second ({_DEMO_MATCHES}), through the API; if that needs a key"
        " (API_KEYS), it is taken from LADDER_DEMO_KEY",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        default=variables.get("WORKERS") or None,
        help="processes that serve (WORKERS, else one for each core that the CPU quota allows)",
    )


def _count(text: str) -> int:
    return _number(text, 0, _MAX_DEMO_USERS)


def _matches(text: str) -> int:
    return _number(text, 1, _MAX_DEMO_MATCHES)


def _number(text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdecimal() and low <= int(text[:10]) <= high):
        message = f"must be a whole number from {low} to {high}, not {text!r}"
        raise argparse.ArgumentTypeError(message)
    return int(text)
