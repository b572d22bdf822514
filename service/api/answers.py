"""What every answer is made of: JSON, and the headers that say what ranked."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Response

from service import metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.ranking.answers import Answer

_encode = msgspec.json.Encoder().encode


def json_response(value: object, *, status: int = 200, headers: Mapping[str, str]) -> Response[bytes]:
    """Return a JSON answer."""
    return Response(_encode(value), status_code=status, headers=dict(headers), media_type="application/json")


def rank_headers(answers: Iterable[Answer[Any]]) -> dict[str, str]:
    """Say what ranked: the least exact source if there are several, the longest lag, the oldest count."""
    answers = list(answers)
    sources = {answer.source for answer in answers}
    lags = [answer.lag_ms for answer in answers if answer.lag_ms is not None]
    counts = [answer.as_of for answer in answers if answer.as_of is not None]
    source = "histogram" if "histogram" in sources else "redis" if sources == {"redis"} else "postgres"
    headers = {"Cache-Control": "no-cache", "X-Rank-Source": source}
    if lags:
        headers["X-Mirror-Lag-Ms"] = str(max(lags))
    if counts:
        headers["X-Rank-As-Of"] = min(counts).astimezone(UTC).isoformat().replace("+00:00", "Z")
    stale = any(answer.stale for answer in answers)
    metrics.ranked(source, stale=stale)
    if stale:
        headers["X-Data-Stale"] = "true"
    return headers
