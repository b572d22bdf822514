"""OPTIONS of addresses with several methods: the framework's own names only the one that was registered first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litestar import HttpMethod, Response, route

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler


def options(path: str, *methods: str) -> HTTPRouteHandler:
    """Return a handler that says which methods an address understands; to be registered before theirs."""
    allow = ", ".join(sorted([*methods, "OPTIONS"]))

    @route(path, http_method=[HttpMethod.OPTIONS], status_code=204, sync_to_thread=False)
    def answer() -> Response[None]:
        return Response(None, status_code=204, headers={"Allow": allow})

    return answer
