"""The board, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, get

from service.api.answers import json_response, rank_headers
from service.api.inputs import demand, query, some_text, whole
from service.errors import Invalid
from service.model import Row

if TYPE_CHECKING:
    from service.ranking.ladder import Ladder


class PageView(msgspec.Struct):
    """A page, and the cursor that continues it; null at the end of the board."""

    items: list[Row]
    total: int
    next_cursor: str | None


@get("/leaderboard", opt={"query": {"limit": whole(1, 1000), "offset": whole(0, 2**53 - 1), "cursor": some_text}})
async def get_leaderboard(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return rows of the board by offset, or strictly after the point that a cursor names."""
    asked = query(request)
    if "cursor" in asked and "offset" in asked:
        raise Invalid(("offset", "cannot be combined with cursor"))
    ladder: Ladder = request.app.state.ladder
    answer, following = await ladder.page(
        limit=asked.get("limit", 100),
        offset=asked.get("offset", 0),
        cursor=asked.get("cursor"),
        demand=demand(request),
    )
    page = answer.value
    return json_response(PageView(page.rows, page.board.total, following), headers=rank_headers([answer]))
