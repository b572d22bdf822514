"""
Load over HTTP, by wrk where there is one, else by a small generator of our own; both send the same requests.

Each connection sends its next request when it has the answer to the one before. What is measured so is how much is
served, and how long an answer takes under that load; it is not how long clients would wait who come at a given rate.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import msgspec
import uvloop

from .results import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

_SCRIPT = Path(__file__).with_name("requests.lua")
_ANSWER_SECONDS = 2.0
_GRACE_SECONDS = 30.0
_AB_SECONDS = 120


class GeneratorFailed(Exception):
    """The load generator could not be run, or said nothing that can be read; the message is one sentence."""


def write_requests(file: Path, lines: Sequence[str]) -> Path:
    """Write what is to be asked for: in each line a method and a target and, behind a tab, a body."""
    file.write_text("\n".join(lines) + "\n", encoding="ascii")
    return file


class Generator(msgspec.Struct, frozen=True):
    """A program that makes load, "" for ours."""

    program: str

    @property
    def name(self) -> str:
        """As it is told in a report."""
        return "wrk, one thread" if self.program else "built in"

    def run(self, base_url: str, requests: Path, *, connections: int, seconds: float, skip: int) -> Sample:
        """
        Ask for so long, from the line `skip` on.

        Raises `GeneratorFailed`, and OSError when nobody listens.
        """
        if self.program:
            return _wrk(self.program, base_url, requests, connections=connections, seconds=seconds, skip=skip)
        return uvloop.run(_built_in(base_url, requests, connections=connections, seconds=seconds, skip=skip))


def find(wanted: str) -> Generator:
    """Return the generator of that name: wrk, built-in, or auto for whichever is there."""
    program = shutil.which("wrk") if wanted in ("wrk", "auto") else None
    if wanted == "wrk" and not program:
        message = "there is no program wrk here: install it, or use --generator built-in"
        raise GeneratorFailed(message)
    return Generator(program or "")


def _wrk(program: str, base_url: str, requests: Path, *, connections: int, seconds: float, skip: int) -> Sample:
    command = [
        *(
            program,
            "-t",
            "1",
            "-c",
            str(connections),
            "-d",
            f"{ceil(seconds)}s",
            "--timeout",
            f"{_ANSWER_SECONDS:.0f}s",
        ),
        *("-s", str(_SCRIPT), base_url, "--", str(requests), str(skip)),
    ]
    output = _output(command, seconds + _GRACE_SECONDS)
    found = re.search(r"^RESULT (\{.*\})$", output, re.MULTILINE)
    if not found:
        message = f"wrk said nothing of what it measured ({output.strip()[-200:]})"
        raise GeneratorFailed(message)
    return msgspec.json.decode(found[1], type=Sample)


def _output(command: Sequence[str], seconds: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)  # noqa: S603  ours
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"{command[0]} could not be run to its end ({error})"
        raise GeneratorFailed(message) from error
    return done.stdout + done.stderr


def apache_bench(url: str, *, requests: int, connections: int) -> Sample | None:
    """Run `ab -n requests -c connections url`: a connection a request. None if there is no ab."""
    program = shutil.which("ab")
    if not program:
        return None
    output = _output([program, "-n", str(requests), "-c", str(connections), url], _AB_SECONDS)
    took = re.search(r"Time taken for tests:\s+([\d.]+)", output)
    times = {int(share): float(ms) for share, ms in re.findall(r"^\s+(\d+)%\s+(\d+)", output, re.MULTILINE)}
    complete = re.search(r"Complete requests:\s+(\d+)", output)
    refused = re.search(r"Non-2xx responses:\s+(\d+)", output)
    if not (took and complete and times):
        message = f"ab said nothing of what it measured ({output.strip()[-200:]})"
        raise GeneratorFailed(message)
    failed = requests - int(complete[1]) + int(refused[1] if refused else 0)
    return Sample(int(complete[1]), float(took[1]), failed, times[50], times[95], times[99], times[100])


async def _built_in(base_url: str, requests: Path, *, connections: int, seconds: float, skip: int) -> Sample:
    parts = urlsplit(base_url)
    host, port = parts.hostname or "", parts.port or 80
    lines = await asyncio.to_thread(requests.read_text, "ascii")
    source = _Source(f"{host}:{port}", lines.splitlines(), skip)
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: _Client(source), host, port) for _ in range(connections)]
    began = time.perf_counter()
    for _, client in made:
        client.ask()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    source.over = True
    for transport, _ in made:
        transport.abort()
    return source.sample(took)


class _Source:
    """What all connections share: the requests, and how long the answers took."""

    def __init__(self, host: str, lines: Sequence[str], skip: int) -> None:
        self._host = host
        self._lines = lines
        self._next = skip % len(lines)
        self.over = False
        self.times: list[float] = []
        self.failed = 0

    def next_request(self) -> bytes:
        head, tab, body = self._lines[self._next].partition("\t")
        self._next = (self._next + 1) % len(self._lines)
        content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if tab else ""
        return f"{head} HTTP/1.1\r\nHost: {self._host}\r\n{content}\r\n{body}".encode("ascii")

    def sample(self, seconds: float) -> Sample:
        return Sample.of(self.times, seconds=seconds, failed=self.failed)


class _Client(asyncio.Protocol):
    """One connection, which asks again when it has the whole answer."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._transport: asyncio.Transport | None = None
        self._got = b""
        self._asked_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one in all but its class.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self._source.over:
            self._source.failed += 1

    def ask(self) -> None:
        if self._transport is not None:
            self._asked_at = time.perf_counter()
            self._transport.write(self._source.next_request())

    def data_received(self, data: bytes) -> None:
        self._got = self._got + data if self._got else data
        head = self._got.find(b"\r\n\r\n")
        if head < 0:
            return
        found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", self._got[:head])
        if len(self._got) < head + 4 + int(found[1] if found else 0):
            return
        source = self._source
        if source.over:
            return
        source.times.append(time.perf_counter() - self._asked_at)
        if not self._got.startswith(b"HTTP/1.1 2"):
            source.failed += 1
        self._got = b""
        self.ask()
