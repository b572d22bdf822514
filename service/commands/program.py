"""The program `ladder`: reads which subcommand is asked for, and runs it."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from service import __version__
from service.arguments import COMMANDS, parse

_SUMMARIES = """\
commands:
  serve      run the service, with stores of its own unless the environment names some
  migrate    bring the database's schema up to date
  reconcile  compare the board in Redis with the users in Postgres, and repair what differs
  import     create and update users from a CSV file
  export     write the whole board as CSV
  benchmark  measure Ladder on this machine

`ladder COMMAND --help` describes each."""


def main() -> int:
    """Run the subcommand that the command line names; returns the exit code."""
    name, *arguments = sys.argv[1:] or [""]
    if name in COMMANDS:
        return run(name, parse(name, arguments, program=f"ladder {name}"))
    parser = argparse.ArgumentParser(
        prog="ladder", epilog=_SUMMARIES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"ladder {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="what to do")
    # What is left is help, the version, or a mistake: each exits.
    parser.parse_args(sys.argv[1:2])
    return 2


def run(command: str, options: argparse.Namespace) -> int:
    """Run a subcommand whose arguments were read; returns the exit code."""
    module = "service.launch" if command == "serve" else f"service.commands.{COMMANDS[command]}"
    code: int = import_module(module).run(options)
    return code
