"""Runs `scripts/import_users.py` as an operator does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from service.settings import Settings

PROGRAM = Path(__file__).parents[2] / "scripts" / "import_users.py"
COMMAND: list[str | Path] = [sys.executable, PROGRAM]


def environment(settings: Settings | None) -> dict[str, str]:
    """Ours without the names of any stores, or with those of a test."""
    own = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    if settings is None:
        return own
    return {**own, "DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}


def run(
    settings: Settings | None, *arguments: str | Path, data: bytes = b"", cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the program to its end."""
    command = [*COMMAND, *arguments]
    return subprocess.run(command, input=data, capture_output=True, env=environment(settings), cwd=cwd, check=False)


def result(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """The line of JSON that `--json` prints, without how long it took."""
    (line,) = done.stdout.splitlines()
    fields: dict[str, Any] = json.loads(line)
    assert fields.pop("seconds") >= 0
    return fields


def counts(done: subprocess.CompletedProcess[bytes]) -> tuple[int, ...]:
    """Created, updated, unchanged, refused."""
    fields = result(done)
    return tuple(fields[name] for name in ("created", "updated", "unchanged", "refused"))
