"""What every answer is made of: JSON, and the headers that say what ranked."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Response

from service import metrics
from service.ranking.answers import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.api.asgi import Headers

encode = msgspec.json.Encoder().encode
"""The JSON of a view."""


def json_response(value: object, *, status: int = 200, headers: Mapping[str, str]) -> Response[bytes]:
    """Return a JSON answer."""
    return Response(encode(value), status_code=status, headers=dict(headers), media_type="application/json")


def rank_headers(answers: Iterable[Answer[Any]]) -> dict[str, str]:
    """Say what ranked: the least exact source if there are several, the longest lag if all are known, the oldest count."""
    answers = list(answers)
    sources = {answer.source for answer in answers}
    lags = [answer.lag_ms for answer in answers if answer.source == "redis"]
    known = [lag for lag in lags if lag is not None]
    counts = [answer.as_of for answer in answers if answer.as_of is not None]
    worst = Answer(
        None,
        "histogram" if "histogram" in sources else "redis" if sources == {"redis"} else "postgres",
        lag_ms=max(known, default=None) if len(known) == len(lags) else None,
        as_of=min(counts, default=None),
        stale=any(answer.stale for answer in answers),
    )
    return {name.decode(): value.decode() for name, value in raw_rank_headers(worst)}


def raw_rank_headers(answer: Answer[Any]) -> Headers:
    """Return the headers that say what ranked, and count it."""
    headers = [(b"cache-control", b"no-cache"), (b"x-rank-source", answer.source.encode())]
    if answer.lag_ms is not None:
        headers.append((b"x-mirror-lag-ms", str(answer.lag_ms).encode()))
    if answer.as_of is not None:
        as_of = answer.as_of.astimezone(UTC).isoformat().replace("+00:00", "Z")
        headers.append((b"x-rank-as-of", as_of.encode()))
    if answer.stale:
        headers.append((b"x-data-stale", b"true"))
    metrics.ranked(answer.source, stale=answer.stale)
    return headers
