"""
The command lines of `ladder` and of the scripts: one parser a command.

Everything here imports the standard library alone and runs on Python 3.8, so that help and wrong arguments are
answered before the dependencies are installed or imported.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "serve": "serve",
    "migrate": "migrate",
    "reconcile": "reconcile",
    "import": "import_users",
    "export": "export_board",
    "benchmark": "benchmark",
}
"""Each subcommand, and the module that holds its parser here and (but for `serve`) its work in `service/commands`."""


class Unusable(Exception):
    """The arguments name something that cannot be used; the message is one sentence."""


def file_name(text: str) -> str:
    """Read the name of a file or directory. An empty one would mean the directory of the caller."""
    if not text:
        message = "must not be empty"
        raise argparse.ArgumentTypeError(message)
    return text


def directory(text: str) -> Path:
    """Read the name of a directory, as `file_name` does."""
    return Path(file_name(text))


def parse(command: str, arguments: Sequence[str], *, program: str) -> argparse.Namespace:
    """Read the arguments of a command; exits with a sentence, code 2, if they are wrong, and with help, code 0."""
    module = import_module(f"{__name__}.{COMMANDS[command]}")
    parser: argparse.ArgumentParser = getattr(module, "Parser", argparse.ArgumentParser)(
        prog=program,
        description=module.DESCRIPTION,
        epilog=module.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(program=program)
    module.add_arguments(parser)
    return parser.parse_args(arguments)
