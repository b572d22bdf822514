"""GET /docs: a page that shows /openapi.json. It asks no other host for anything, and runs no script but its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from litestar import Request, Response, get

from service.api.asset import ASSET_HEADERS, Asset, asset_response
from service.api.operation import Operation, Says

_FILES = Path(__file__).with_name("docs_page")
_PAGE = Asset.of((_FILES / "docs.html").read_bytes(), "text/html")
_STYLE = Asset.of((_FILES / "docs.css").read_bytes(), "text/css")
_SCRIPT = Asset.of((_FILES / "docs.js").read_bytes(), "text/javascript")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_IN_QUERY = "!$%&'()*+,/:;=?@[]"
"""Characters that stay as they are in a query, beside letters, digits and `-._~`."""


def _operation(summary: str, media_type: str) -> Operation:
    return Operation(
        tag="About",
        summary=summary,
        headers=("If-None-Match",),
        answers={
            200: Says("The file.", "...", ASSET_HEADERS, media_type),
            304: Says("It has not changed.", headers=ASSET_HEADERS),
        },
    )


@get("/docs", opt={"any_query": True, "doc": _operation("This description as a page", "text/html")})
async def get_docs(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the page; `/docs/` redirects to it."""
    if request.scope["raw_path"].endswith(b"/"):
        return Response(b"", status_code=308, headers={"Location": _without_slash(request)})
    return asset_response(request, _PAGE, {"Content-Security-Policy": _POLICY})


def _without_slash(request: Request[Any, Any, Any]) -> str:
    # Relative while the path before ours is not known: right below any. The query may hold bytes that no header may.
    target = f"{request.app.state.public_path(request.scope) or '..'}/docs"
    query = quote(request.scope["query_string"], safe=_IN_QUERY)
    return f"{target}?{query}" if query else target


@get("/docs/docs.css", opt={"any_query": True, "doc": _operation("The page's style", "text/css")})
async def get_style(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the style."""
    return asset_response(request, _STYLE)


@get("/docs/docs.js", opt={"any_query": True, "doc": _operation("The page's script", "text/javascript")})
async def get_script(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the script."""
    return asset_response(request, _SCRIPT)
