"""Where a measurement was made, without anything that names a machine, an account or a directory."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import redis

from service import __version__
from service.checkout import IS_CHECKOUT, ROOT
from service.cpus import usable_cpus

from .results import Environment
from .sessions import session

_SECONDS = 10


def describe(database_url: str, redis_url: str) -> Environment:
    """Ask the machine and both stores."""
    with session(database_url) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    with redis.Redis.from_url(redis_url) as client:
        server = client.info("server")
    name = server.get("server_name", "redis")
    version = server.get(f"{name}_version", server["redis_version"])
    return describe_here(postgres=f"PostgreSQL {row[0] if row else '?'}", mirror=f"{name.capitalize()} {version}")


def describe_here(*, postgres: str = "not asked", mirror: str = "not asked") -> Environment:
    """Ask the machine."""
    return Environment(
        cpu=_cpu(),
        cores=usable_cpus(),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        kernel=f"{platform.system()} {platform.release().partition('-')[0]}",
        python=platform.python_version(),
        postgres=postgres,
        redis=mirror,
        revision=_revision(),
        date=datetime.now(UTC).date().isoformat(),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _revision() -> str:
    """The commit, with a plus when something differs from it; what was installed has a version instead."""
    if not IS_CHECKOUT:
        return __version__
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit.strip() + ("+" if changed.strip() else "")


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS).stdout  # noqa: S603  ours
