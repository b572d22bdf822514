"""Requests byte by byte, for those that no HTTP client would send, and their answers."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
from collections.abc import Sequence

import msgspec

SECONDS = 10.0


class Reply(msgspec.Struct, frozen=True):
    """An answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        """The body, which must be a JSON object."""
        return msgspec.json.decode(self.body, type=dict[str, object])


class _Answers(io.BytesIO):
    """What http.client takes for a socket: the bytes that have come back."""

    def makefile(self, *_: object) -> _Answers:
        return self

    def close(self) -> None:
        """Stay open: the next answer follows."""


def request(
    method: str,
    target: bytes | str,
    headers: Sequence[tuple[str, bytes | str]] = (),
    body: bytes | None = None,
    *,
    chunk: int = 0,
    last: bool = True,
) -> bytes:
    """The bytes of a request; the body in chunks of `chunk` bytes, if that is not 0, else with its length."""
    lines = [_bytes(method) + b" " + _bytes(target) + b" HTTP/1.1", b"Host: ladder.test"]
    lines += [_bytes(name) + b": " + _bytes(value) for name, value in headers]
    if last:
        lines.append(b"Connection: close")
    if body is None:
        return b"\r\n".join([*lines, b"", b""])
    if not chunk:
        return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])
    parts = [body[start : start + chunk] for start in range(0, len(body), chunk)]
    sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", sent])


def _bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def exchange(port: int, sent: bytes) -> Reply:
    """The first answer to what was sent; status 0 when the connection was closed without one."""
    answers = exchanges(port, sent)
    return answers[0] if answers else Reply(0, {}, b"")


def exchanges(port: int, sent: bytes) -> list[Reply]:
    """Every answer until the server closes the connection, to requests of which the last asks for that."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        received = b""
        # A server need not read the rest of a request that it has refused, and may be gone before we are through.
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                received += part
    return _replies(received, sent.partition(b" ")[0].decode("latin-1"))


def _replies(received: bytes, method: str) -> list[Reply]:
    answers, found = _Answers(received), []
    while answers.tell() < len(received):
        response = http.client.HTTPResponse(answers, method=method)  # type: ignore[arg-type]  # only makefile is used
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        found.append(Reply(response.status, headers, response.read()))
    return found
