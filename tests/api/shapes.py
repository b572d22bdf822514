"""The shapes of the contract: fields in their order, problem documents, headers."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import count

import httpx
import msgspec

from service.model import Row

from .wire import Reply

USER = ["id", "username", "rating", "rank", "position", "version", "created_at", "updated_at"]
RATED = [*USER, "previous_rating", "previous_rank"]
ROW = ["position", "rank", "id", "username", "rating"]
PAGE = ["items", "total", "next_cursor"]

SLUGS = {
    "validation": 400,
    "unauthorized": 401,
    "not-found": 404,
    "method-not-allowed": 405,
    "username-taken": 409,
    "id-taken": 409,
    "rating-out-of-range": 409,
    "idempotency-mismatch": 422,
    "too-slow": 408,
    "precondition-failed": 412,
    "too-large": 413,
    "unsupported-media-type": 415,
    "rate-limited": 429,
    "internal": 500,
    "unavailable": 503,
    "outcome-unknown": 503,
}

# Words that only an exception, a statement, a file or a driver would say.
_INNARDS = re.compile(
    r"Traceback|Exception|Error\b|\.py\b|psycopg|redis\.|litestar|msgspec|granian|SQLSTATE|SELECT |INSERT |UPDATE |"
    r"EVALSHA|/site-packages/|/service/|0x[0-9a-f]{6,}",
)
_RFC3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")

_numbers = count(1)


def fresh_name(stem: str = "user") -> str:
    """A username that no other test uses."""
    return f"{stem}{next(_numbers)}"


def assert_problem(answer: httpx.Response | Reply, slug: str, *fields: str) -> None:
    """The answer is the documented problem document; its errors name at least these fields, or there are none."""
    status = answer.status_code if isinstance(answer, httpx.Response) else answer.status
    body = answer.content if isinstance(answer, httpx.Response) else answer.body
    problem = msgspec.json.decode(body, type=dict[str, object])

    assert (SLUGS[slug], f"/problems/{slug}") == (status, problem.get("type"))
    assert answer.headers["content-type"] == "application/problem+json"
    assert list(problem) == ["type", "title", "status", "detail", "errors"]
    assert status == problem["status"]
    assert problem["title"]
    assert problem["detail"]
    assert isinstance(problem["errors"], list)
    assert all(list(error) == ["field", "message"] and error["message"] for error in problem["errors"])
    named = {error["field"] for error in problem["errors"]}
    assert set(fields) <= named
    assert bool(fields) == bool(named) or slug == "validation"
    assert not _INNARDS.search(body.decode())
    assert_request_id(answer.headers)


def assert_request_id(headers: Mapping[str, str]) -> None:
    """The answer has an id of the request, one only, that can be quoted anywhere."""
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", headers["x-request-id"])


def assert_ranked_by(source: str, headers: Mapping[str, str]) -> None:
    """The headers name the store that ranked, and how far the mirror may lag only if that was it."""
    assert source == headers["x-rank-source"]
    if source == "redis":
        assert re.fullmatch(r"0|[1-9]\d*", headers["x-mirror-lag-ms"])
    else:
        assert "x-mirror-lag-ms" not in headers


def moment(text: object) -> datetime:
    """The moment that a timestamp names, which must be RFC 3339 in UTC."""
    assert isinstance(text, str)
    assert _RFC3339_UTC.fullmatch(text)
    found = datetime.fromisoformat(text)
    assert found.utcoffset() == timedelta(0)
    return found


def uuid7_millis(text: object) -> int:
    """The milliseconds that a UUIDv7 carries; it must be in canonical form."""
    assert isinstance(text, str)
    parsed = uuid.UUID(text)
    assert (text, 7, uuid.RFC_4122) == (str(parsed), parsed.version, parsed.variant)
    return parsed.int >> 80


def wire_row(row: Row) -> dict[str, object]:
    """A row of the model as the board shows it."""
    shown: dict[str, object] = msgspec.to_builtins(row)
    return shown
