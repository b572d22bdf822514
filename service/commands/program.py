"""The program `ladder`: reads which subcommand is asked for, and runs it."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from service import __version__, standard_streams
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
    return standard_streams.run(_main, program="ladder")


def _main() -> int:
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
    # A command whose data would go there refuses by itself.
    needs_output = command == "export" or "-" in (vars(options).get("rejects"), vars(options).get("page"))
    if sys.stdout is None and not needs_output:
        print(f"{options.program}: standard output is closed, so the result is not printed.", file=sys.stderr)
    module = "service.launch" if command == "serve" else f"service.commands.{COMMANDS[command]}"
    code: int = import_module(module).run(options)
    return code
