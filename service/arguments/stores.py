"""The option that chooses the stores, which all commands but `serve` share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.arguments import directory
from service.checkout import IS_CHECKOUT

if TYPE_CHECKING:
    import argparse

HELP = """\
The stores are those that DATABASE_URL and REDIS_URL name; with --data, or when neither is set, the embedded pair
over that directory, which is started meanwhile if it does not run."""


DEFAULT = ".ladder" if IS_CHECKOUT else "~/.local/share/ladder"


def add_option(parser: argparse.ArgumentParser) -> None:
    """Let the operator say `--data DIR`."""
    parser.add_argument(
        "--data", metavar="DIR", type=directory, help=f"use the embedded pair over this directory ({DEFAULT})"
    )
