"""`ladder migrate`: bring the database's schema up to date."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from service.errors import LadderError, Misconfigured, Unavailable, as_sentence, explain
from service.settings import SettingsError, read_variable
from service.store.migrate import migrate


def run(_: argparse.Namespace) -> int:
    """Apply what is pending, and say what that was; returns the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if os.environ.get("REDIS_URL"):
            # Not needed here, but a slip in it would stop the service that is started next.
            read_variable("redis_url", os.environ)
        applied = migrate(read_variable("database_url", os.environ), waiting=_say)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except Misconfigured as error:
        print(as_sentence(explain(error)), file=sys.stderr)
        return 2
    except Unavailable as error:
        print(as_sentence(explain(error)), file=sys.stderr)
        return 5
    except LadderError as error:
        print(as_sentence(f"The schema could not be brought up to date: {explain(error)}"), file=sys.stderr)
        return 1
    print(f"applied {', '.join(applied)}" if applied else "the schema is up to date")
    return 0


def _say(reason: str) -> None:
    print(as_sentence(f"Waiting: {reason}"), file=sys.stderr, flush=True)
