"""Which codings a client accepts, and what the middleware makes of an answer, without a server."""

from __future__ import annotations

import gzip
import importlib.util
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from service.api import compression
from service.api.compression import MIN_BYTES, Compression, accepts_gzip, gzipped

ACCEPTED = [
    "gzip", "GZIP", "x-gzip", "gzip, deflate, br, zstd", "br;q=1.0, gzip;q=0.8, *;q=0.1", "*", "*;q=0.001", "deflate, *",
    "gzip;q=1", "gzip; q=0.5", "gzip ;Q=0.5", "identity;q=0, gzip", "identity;q=0.5, gzip;q=0.5", "identity;q=0, *",
    ",, gzip ,", "br;q=0, gzip;q=0.001", "*;q=0, gzip", "gzip;q=0, x-gzip",
    "gzip;q=0.5, *;q=0.5", "gzip;q=0.5, *;q=0.4", "gzip;q=0.5, *, identity;q=0.4",
]  # fmt: skip
REFUSED = [
    "", "identity", "br", "deflate, br", "gzip;q=0", "gzip;q=0.000", "gzip;q=0.", "gzip;q=0, *", "*;q=0", "*;q=0, identity", "identity;q=0",
    "identity, gzip;q=0.5", "identity;q=0.6, *;q=0.5", "gzip;q=2", "gzip;q=0.1234", "gzip;q=x", "gzip;q=-1", "gzip;q", "gzip;x=1",
    "gzip;q=0.5, *", "gzip;q=0.5, br, *;q=0.6", "gzip;q=0.5;x=1", "gzip deflate", "gzipped", "not-gzip", ";q=1", "gzip" + "," * 300, "\xff",
]  # fmt: skip


@pytest.mark.parametrize("header", ACCEPTED)
def test_gzip_is_accepted(header: str) -> None:
    """Named, or meant by a star, and liked as well as the answer as it is."""
    assert accepts_gzip([(b"host", b"a"), (b"accept-encoding", header.encode("latin-1"))])


@pytest.mark.parametrize("header", REFUSED)
def test_gzip_is_not_accepted(header: str) -> None:
    """Not named, excluded, liked less than the answer as it is, or not understood."""
    assert not accepts_gzip([(b"accept-encoding", header.encode("latin-1"))])


def test_several_lines_are_one_list() -> None:
    assert accepts_gzip([(b"accept-encoding", b"br"), (b"accept-encoding", b"gzip")])
    assert not accepts_gzip([(b"accept-encoding", b"gzip;q=0"), (b"accept-encoding", b"*")])
    assert not accepts_gzip([])


async def answered(
    headers: list[tuple[bytes, bytes]], parts: list[bytes], *, status: int = 200, opt: dict[str, object] | None = None
) -> tuple[dict[bytes, bytes], bytes]:
    """Headers and body that a client gets who accepts gzip."""
    sent: list[Any] = []

    async def app(_: object, __: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for number, part in enumerate(parts, 1):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "headers": [(b"accept-encoding", b"gzip")],
        "route_handler": SimpleNamespace(opt=opt or {}),
    }
    await Compression(app)(scope, None, send)  # type: ignore[arg-type]  # nothing is received
    assert ["http.response.start", *["http.response.body"] * len(parts)] == [message["type"] for message in sent]
    return dict(sent[0]["headers"]), b"".join(message["body"] for message in sent[1:])


LONG = b"a" * (MIN_BYTES + 1)


async def test_a_long_answer_is_compressed() -> None:
    """Whatever route it is from, a refusal too; its length is that of what is sent."""
    for status in (200, 201, 400):
        headers, body = await answered([(b"content-length", b"%d" % len(LONG))], [LONG], status=status)

        assert LONG == gzip.decompress(body)
        assert {
            b"vary": b"Accept-Encoding",
            b"content-encoding": b"gzip",
            b"content-length": b"%d" % len(body),
        } == headers


@pytest.mark.parametrize("opt", [{}, {"long": True}])
async def test_a_short_answer_stays_as_it_is(opt: dict[str, object]) -> None:
    """A route whose answers may be long says that they depend on what the client accepts."""
    short = LONG[:-1]
    given = [(b"content-length", b"%d" % len(short))]
    headers, body = await answered(given, [short], opt=opt)

    assert short == body
    assert dict(given) | ({b"vary": b"Accept-Encoding"} if opt else {}) == headers


async def test_an_answer_with_a_tag_keeps_its_bytes() -> None:
    """A strong tag names them."""
    headers, body = await answered([(b"content-length", b"%d" % len(LONG)), (b"etag", b'"v7"')], [LONG])

    assert LONG == body
    assert b"content-encoding" not in headers


@pytest.mark.parametrize("given", [[], [(b"content-length", b"2050")]])
async def test_an_answer_in_pieces_stays_as_it_is(given: list[tuple[bytes, bytes]]) -> None:
    """A stream above all, which has no length."""
    headers, body = await answered(given, [LONG, LONG])

    assert LONG + LONG == body
    assert b"content-encoding" not in headers


def test_equal_bodies_are_compressed_to_equal_bytes() -> None:
    """No time stands in them."""
    assert gzipped(LONG) == gzipped(LONG)
    assert b"\0\0\0\0" == gzipped(LONG)[4:8]


def test_without_isal_the_standard_library_compresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no wheel for every processor."""
    monkeypatch.setitem(sys.modules, "isal", None)
    spec = importlib.util.spec_from_file_location("compression_without_isal", compression.__file__)
    assert spec
    assert spec.loader
    without = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(without)

    assert LONG == gzip.decompress(without.gzipped(LONG))
