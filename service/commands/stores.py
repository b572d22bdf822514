"""Which stores a command talks to: those that the environment names, or the embedded pair over a directory."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service import checkout
from service.embedded import open_pair
from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def chosen(data: Path | None, *, make: bool = False, board: bool = True) -> Iterator[tuple[str, str]]:
    """
    Give the URLs of Postgres and Redis, for as long as an embedded pair may have to run.

    A directory that is not there is made only with `make`; who needs no `board` may leave REDIS_URL out, but a wrong
    one is refused. Raises `SettingsError` for variables or a directory that cannot be used, `EmbeddedError` for a pair
    that does not start.
    """
    variables = {name: os.environ.get(name, "") for name in ("DATABASE_URL", "REDIS_URL")}
    if data is None and any(variables.values()):
        if not board:
            variables["REDIS_URL"] = variables["REDIS_URL"] or "unix:///none"
        settings = Settings.from_env(variables)
        yield settings.database_url, settings.redis_url
        return
    data = data or checkout.data_directory()
    if not make and not data.exists():
        message = f"DATABASE_URL and REDIS_URL are not set, and there is no directory {data}"
        raise SettingsError(message)
    with open_pair(data) as pair:
        yield pair.database_url, pair.redis_url
