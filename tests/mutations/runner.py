"""
Applies mutations to a copy of the repository, one at a time, and runs the tests that must notice.

First the same tests without any: where they fail anyway nobody has noticed anything. All runs share one pair of
servers, that of DATABASE_URL and REDIS_URL or an embedded one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import redis

from service.embedded import start_pair

from .mutation import Gone, Mutation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
SECONDS, ALL_SECONDS = 300, 1800
"""How long the tests of one mutation may take, and those of all."""

_NOTICED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)

Outcome = Literal["caught", "survived", "gone", "broken"]
"""Whether a test failed; the text is not there; or pytest came to no verdict."""


class Verdict(NamedTuple):
    """What became of a mutation: the test that noticed, or why there is no verdict."""

    name: str
    outcome: Outcome
    by: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.outcome:9}{self.name:56}{self.seconds:6.1f} s  {self.by}"


class Unsound(Exception):
    """The tests fail without a mutation; the message is what pytest said."""


class Runner:
    """Works in `copy`, a directory of its own, with the servers that `env` names."""

    def __init__(self, copy: Path, env: Mapping[str, str], *, owns_redis: bool) -> None:
        self._copy, self._env, self._owns_redis = copy, env, owns_redis

    def check(self, mutations: Sequence[Mutation]) -> None:
        """Run the tests of all of them over the product as it is; raises `Unsound`."""
        tests = sorted({test for mutation in mutations for test in mutation.tests})
        code, output = self._pytest(tests, ALL_SECONDS)
        if code != 0:
            raise Unsound(output)

    def verdict(self, mutation: Mutation) -> Verdict:
        """Apply a mutation, run its tests, and take it back."""
        begun, path = time.monotonic(), self._copy / mutation.file
        stat = path.stat()
        try:
            text = mutation.apply(self._copy)
        except Gone as error:
            return Verdict(mutation.name, "gone", str(error), 0)
        try:
            code, output = self._pytest(mutation.tests)
        finally:
            path.write_text(text, encoding="utf-8")
            # What Python compiled of it is valid again.
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        noticed = _NOTICED.findall(output)
        outcome: Outcome = "survived" if code == 0 else "caught" if code == 1 and noticed else "broken"
        by = {"caught": noticed[-1] if noticed else "", "broken": f"pytest ended with {code}"}.get(outcome, "")
        return Verdict(mutation.name, outcome, by, time.monotonic() - begun)

    def _pytest(self, tests: Sequence[str], seconds: float = SECONDS) -> tuple[int, str]:
        if self._owns_redis:
            # A run that was cut off leaves what the next one would refuse to flush.
            with redis.Redis.from_url(self._env["REDIS_URL"]) as client:
                client.flushall()
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
        with subprocess.Popen(
            [*command, *tests],
            cwd=self._copy,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                # With the services that a test has started.
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
                return -1, output
        return process.returncode, output


@contextlib.contextmanager
def open_runner() -> Iterator[Runner]:
    """Copy what git knows or would add, start servers if none are given, and leave nothing of either behind."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ladder-mutations-")))
        copy = folder / "copy"
        _copy_to(copy)
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        owns_redis = not (env.get("DATABASE_URL") and env.get("REDIS_URL"))
        if owns_redis:
            pair = stack.enter_context(start_pair(folder / "data"))
            env.update(DATABASE_URL=pair.database_url, REDIS_URL=pair.redis_url)
        yield Runner(copy, env, owns_redis=owns_redis)


def _copy_to(copy: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    if (ROOT / ".venv").exists():
        (copy / ".venv").symlink_to((ROOT / ".venv").resolve())
