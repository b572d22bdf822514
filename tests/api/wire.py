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


def http2_request(target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The bytes of a GET in HTTP/2 by a client that knows that it is spoken; RFC 9113, RFC 7541, nothing compressed."""
    fields = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"ladder.test"),
        (b":path", target),
        *headers,
    ]
    block = b"".join(b"\x00" + _hpack(name) + _hpack(value) for name, value in fields)
    parts = [block[start : start + 16_000] for start in range(0, len(block), 16_000)]
    settings, head, continuation, goodbye = 4, 1, 9, 7
    frames = [_frame(settings, 0, 0, b"")]
    for number, part in enumerate(parts):
        end_of_stream, end_of_headers = number == 0, number == len(parts) - 1
        frames.append(_frame(continuation if number else head, end_of_stream | end_of_headers << 2, 1, part))
    # Nothing follows: the server closes the connection when it has answered.
    frames.append(_frame(goodbye, 0, 0, b"\x00" * 8))
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(frames)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _hpack(text: bytes) -> bytes:
    # Its length in seven bits, continued in little-endian groups of seven.
    if len(text) < 127:
        return bytes([len(text)]) + text
    length, rest = [127], len(text) - 127
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    return bytes([*length, rest]) + text


def exchange(port: int, sent: bytes, *, seconds: float = SECONDS) -> Reply:
    """The first answer to what was sent; status 0 when the connection was closed without one."""
    answers = exchanges(port, sent, seconds=seconds)
    return answers[0] if answers else Reply(0, {}, b"")


def exchanges(port: int, sent: bytes, *, seconds: float = SECONDS) -> list[Reply]:
    """Every answer until the server closes the connection, to requests of which the last asks for that."""
    return replies(received(port, sent, seconds=seconds), sent.partition(b" ")[0].decode("latin-1"))


def received(port: int, sent: bytes, *, seconds: float = SECONDS) -> bytes:
    """The bytes that come back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        answer = b""
        # A server need not read the rest of a request that it has refused, and may be gone before we are through.
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
    return answer


def replies(received: bytes, method: str) -> list[Reply]:
    """What was received, taken apart; `method` is that of the requests, because HEAD has no body."""
    answers, found = _Answers(received), []
    while answers.tell() < len(received):
        response = http.client.HTTPResponse(answers, method=method)  # type: ignore[arg-type]  # only makefile is used
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        found.append(Reply(response.status, headers, response.read()))
    return found
