"""OPTIONS of addresses with several handlers: the framework's own names only the methods of the first one."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from litestar import HttpMethod, Response, route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litestar.handlers import HTTPRouteHandler


def options(handlers: Sequence[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
    """Return what says which methods such an address understands, one for each; to be registered before them all."""
    sharing: defaultdict[str, list[HTTPRouteHandler]] = defaultdict(list)
    for handler in handlers:
        for path in handler.paths:
            sharing[path].append(handler)
    return [
        _answering(path, {str(method) for handler in several for method in handler.http_methods})
        for path, several in sharing.items()
        if len(several) > 1
    ]


def _answering(path: str, methods: set[str]) -> HTTPRouteHandler:
    allow = ", ".join(sorted({*methods, "OPTIONS"}))

    @route(path, http_method=[HttpMethod.OPTIONS], status_code=204, sync_to_thread=False)
    def answer() -> Response[None]:
        return Response(None, status_code=204, headers={"Allow": allow})

    return answer
