"""A user's way: where they stood at the end of each day on which their rating had changed."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, get

from service.api.answers import json_response
from service.api.inputs import query, user_id
from service.api.operation import Operation, Says
from service.api.readers import whole
from service.model import HISTORY_DAYS, Day, UserId

if TYPE_CHECKING:
    from service.ranking.ladder import Ladder

_KEEP = {"Cache-Control": "private, max-age=60"}
"""Rows change a few times an hour at most. No shared cache may keep them: it would show whoever has been deleted."""


class History(msgspec.Struct):
    """Days on which the rating had changed, oldest first; the first one may be from before those that were asked for."""

    id: UserId
    items: list[Day]


_HISTORY = Operation(
    tag="Ranks",
    summary="A user's past",
    answers={
        200: Says(
            "Where the user stood.",
            History(UserId("ada"), [Day(date(2026, 10, 2), 1815, 1549, 1549), Day(date(2026, 11, 28), 2700, 1, 1)]),
            ("Cache-Control",),
        )
    },
    problems=("not-found",),
)
_DAYS = {"days": whole(1, HISTORY_DAYS, default=30, about="How many days up to today, UTC.")}


@get("/users/{user_id:str}/history", opt={"long": True, "query": _DAYS, "doc": _HISTORY})
async def get_history(request: Request[Any, Any, Any]) -> Response[bytes]:
    """
    Return rating, rank and position at the end of each day on which the rating had changed, UTC, oldest first.

    Whoever has no day left, after 400 days, may get one without a change. The last day before those that are asked for
    comes first, so that a chart can begin at its left edge. The present day is as of the last reconciliation. The answer
    comes from Postgres alone.
    """
    ladder: Ladder = request.app.state.ladder
    target = user_id(request)
    past = await ladder.past(target, days=query(request)["days"])
    return json_response(History(target, past), headers=_KEEP)
