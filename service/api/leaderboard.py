"""The board, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, get

from service.api.answers import json_response, rank_headers
from service.api.inputs import demand, query
from service.api.operation import FRESHNESS, READ_HEADERS, Operation, Says
from service.api.readers import some_text, whole
from service.errors import Invalid
from service.model import Row, UserId

if TYPE_CHECKING:
    from service.model import Page
    from service.ranking.ladder import Ladder


class PageView(msgspec.Struct):
    """A page, and the cursor that continues it; null at the end of the board."""

    items: list[Row]
    total: int
    next_cursor: str | None


PAGE = PageView(
    [Row(1, 1, UserId("ada"), "Ada.Lovelace", 2700), Row(2, 2, UserId("emanuel"), "Lasker", 2668)],
    10_001,
    "SbL9ehXp-EXB6aSwWzEsWzI2NjgsIkxhc2tlciJdXQ",
)

_LEADERBOARD = Operation(
    tag="Leaderboard",
    summary="A page of the board",
    headers=FRESHNESS,
    answers={200: Says("Consecutive rows of the board.", PAGE, READ_HEADERS)},
)
_QUERY = {
    "limit": whole(1, 1000, default=100, about="How many rows."),
    "offset": whole(0, 2**53 - 1, about="How many rows to skip; 0 if not given. Not together with `cursor`."),
    "cursor": some_text(about="The `next_cursor` of a page: rows strictly after that page's last one."),
}


@get("/leaderboard", opt={"long": True, "query": _QUERY, "doc": _LEADERBOARD})
async def get_leaderboard(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return rows of the board by offset, or strictly after the point that a cursor names."""
    asked = query(request)
    if "cursor" in asked and "offset" in asked:
        raise Invalid(("offset", "cannot be combined with cursor"))
    ladder: Ladder = request.app.state.ladder
    answer, following = await ladder.page(
        limit=asked["limit"],
        offset=asked.get("offset", 0),
        cursor=asked.get("cursor"),
        demand=demand(request),
    )
    return json_response(page_view(answer.value, following), headers=rank_headers([answer]))


def page_view(page: Page, following: str | None) -> PageView:
    """Return a page as answers show it."""
    return PageView(page.rows, page.board.total, following)
