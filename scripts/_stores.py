"""Which stores a script talks to: those that the environment names, or the embedded pair over a directory."""

from __future__ import annotations

import _venv

# isort: split
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from service.embedded import open_pair
from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

HELP = """\
The stores are those that DATABASE_URL and REDIS_URL name; with --data, or when neither is set, the embedded pair
over that directory, which is started meanwhile if it does not run."""


def add_option(parser: argparse.ArgumentParser) -> None:
    """Let the operator say `--data DIR`."""
    parser.add_argument("--data", metavar="DIR", type=Path, help="use the embedded pair over this directory (.ladder)")


@contextmanager
def chosen(data: Path | None, *, make: bool = False, board: bool = True) -> Iterator[tuple[str, str]]:
    """
    Give the URLs of Postgres and Redis, for as long as an embedded pair may have to run.

    A directory that is not there is made only with `make`; who needs no `board` may leave REDIS_URL out. Raises
    `SettingsError` for variables or a directory that cannot be used, `EmbeddedError` for a pair that does not start.
    """
    variables = {name: os.environ.get(name, "") for name in ("DATABASE_URL", "REDIS_URL")}
    if data is None and any(variables.values()):
        if not board:
            variables["REDIS_URL"] = "unix:///none"
        settings = Settings.from_env(variables)
        yield settings.database_url, settings.redis_url
        return
    data = data or _venv.ROOT / ".ladder"
    if not make and not data.exists():
        message = f"DATABASE_URL and REDIS_URL are not set, and there is no directory {data}"
        raise SettingsError(message)
    with open_pair(data) as pair:
        yield pair.database_url, pair.redis_url
