"""Error monitoring: a defect is told to the Sentry that is named, and to nobody else; and no data with it."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from .serving import Service, serving, wait_until


class Sentry(ThreadingHTTPServer):
    """Takes what an SDK sends."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Envelopes)
        self.received: list[bytes] = []
        self.dsn = f"http://key@127.0.0.1:{self.server_port}/1"


class _Envelopes(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Sentry)
        self.server.received.append(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    """A Sentry that keeps what it is told."""
    with Sentry() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def watched(database_url: str, redis_url: str, sentry: Sentry) -> Iterator[Service]:
    """A service that tells it of its defects."""
    with serving(database_url, redis_url, env={"SENTRY_DSN": sentry.dsn}) as running:
        wait_until(running.is_mirrored)
        yield running


def test_a_defect_is_told_without_anybodys_data(watched: Service, sentry: Sentry) -> None:
    """Where it happened and the request's id; no name, no address, no secret, no variable."""
    watched.get("/users/search?username=nobody")
    assert watched.put("nobody", 1500).status_code == 404
    assert not sentry.received

    watched.execute("ALTER TABLE users RENAME TO hidden")
    try:
        answer = watched.get(
            "/users/search?username=geheimniskraemer", authorization="Bearer geheim", x_request_id="told.1"
        )
        assert 500 == answer.status_code
        wait_until(lambda: sentry.received)
    finally:
        watched.execute("ALTER TABLE hidden RENAME TO users")
    told = b"".join(sentry.received)

    assert b"told.1" in told
    assert b"StoreBug" in told
    assert b"ledger.py" in told
    for data in (b"geheim", b"127.0.0.1", b"postgresql://", b'"vars"', b'"user"', b'"request"'):
        assert data not in told.replace(sentry.dsn.encode(), b"").replace(b'"dsn":', b"")


def test_without_a_name_nothing_is_even_imported() -> None:
    """The SDK is an extra."""
    code = "import sys, service.app, service.__main__; sys.exit('sentry_sdk' in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode
