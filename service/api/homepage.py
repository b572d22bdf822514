"""GET /: the leaderboard, live, for people. It asks no other host for anything, and runs no script but its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litestar import Request, Response, get

from service.api.asset import ASSET_HEADERS, Asset, asset_response
from service.api.operation import Operation, Says
from service.errors import NotFound

_FOLDER = Path(__file__).with_name("site")
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PAGE = Asset.of((_FOLDER / "index.html").read_bytes(), "text/html")
_FILES = {
    path.name: Asset.of(path.read_bytes(), _MEDIA_TYPES[path.suffix])
    for path in sorted(_FOLDER.iterdir())
    if path.suffix in _MEDIA_TYPES
}
# Names and ratings are strangers' words: with trusted types no script can make markup of them, by mistake either.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HOMEPAGE = Operation(
    tag="About",
    summary="The live leaderboard as a page",
    headers=("If-None-Match",),
    answers={
        200: Says("The page.", "...", ASSET_HEADERS, "text/html"),
        304: Says("It has not changed.", headers=ASSET_HEADERS),
    },
)
_FILE = Operation(
    tag="About",
    summary="A script, style or picture of the live leaderboard",
    headers=("If-None-Match",),
    answers={
        200: Says("The file.", "...", ASSET_HEADERS, "*/*"),
        304: Says("It has not changed.", headers=ASSET_HEADERS),
    },
    problems=("not-found",),
)


@get("/", opt={"any_query": True, "doc": _HOMEPAGE})
async def get_homepage(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the page."""
    return asset_response(request, _PAGE, {"Content-Security-Policy": _POLICY})


@get("/site/{site_file:str}", opt={"any_query": True, "doc": _FILE})
async def get_site_file(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return one of the files that the page consists of."""
    asset = _FILES.get(request.path_params["site_file"])
    if asset is None:
        raise NotFound("There is no such file.")
    return asset_response(request, asset)
