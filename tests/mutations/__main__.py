"""
Run the mutations: .venv/bin/python -m tests.mutations [--only NAME ...] [--json]

A line each, as soon as it is known. Exit code 0 if every mutation was caught; 1 if one survived, does not apply any
more or came to no verdict; 2 if there is no such mutation, or the tests fail without any.
"""

from __future__ import annotations

import argparse
import json
import sys

from . import MUTATIONS
from .runner import Unsound, open_runner


def main(arguments: list[str] | None = None) -> int:
    """Run the mutations that are asked for; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these alone")
    parser.add_argument("--list", action="store_true", help="show them and the tests that must notice, and run none")
    parser.add_argument("--json", action="store_true", help="an object a line instead of a text")
    options = parser.parse_args(arguments)
    chosen = [mutation for mutation in MUTATIONS if not options.only or mutation.name in options.only]
    if unknown := {*(options.only or ())} - {mutation.name for mutation in chosen}:
        parser.error(f"no mutation is called {', '.join(sorted(unknown))}; see --list")

    if options.list:
        for mutation in chosen:
            told = f"{mutation.name:56}{mutation.file}\n" + "".join(f"    {test}\n" for test in mutation.tests)
            _say(json.dumps(mutation._asdict()) if options.json else told.rstrip())
        return 0

    verdicts = []
    with open_runner() as runner:
        try:
            runner.check(chosen)
        except Unsound as error:
            sys.stderr.write(f"{error}\nThe tests fail without a mutation.\n")
            return 2
        for mutation in chosen:
            verdict = runner.verdict(mutation)
            verdicts.append(verdict)
            _say(json.dumps(verdict._asdict()) if options.json else str(verdict))
    caught = sum(verdict.outcome == "caught" for verdict in verdicts)
    if not options.json:
        _say(f"{caught} of {len(verdicts)} caught")
    return 0 if caught == len(verdicts) else 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
