"""The path that clients see before ours: a proxy may serve the API below one, and takes it away before it asks here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.settings import public_path

if TYPE_CHECKING:
    from service.api.asgi import Scope
    from service.api.client_address import ClientAddresses

_HEADER = b"x-forwarded-prefix"


class PublicPaths:
    """
    Names the path that the client of a request sees before ours.

    It is X-Forwarded-Prefix if a trusted proxy sends exactly one, else `root_path`. A value that is no path is ignored:
    a proxy that does not set the header passes on whatever the client sent.
    """

    def __init__(self, clients: ClientAddresses, root_path: str) -> None:
        self._clients = clients
        self._root_path = root_path

    def __call__(self, scope: Scope) -> str:
        """Return the path of a request, "" if there is none. O(headers)."""
        lines = [value for name, value in scope["headers"] if name == _HEADER]
        if len(lines) == 1 and self._clients.is_proxy(scope):
            try:
                return public_path(lines[0].decode("latin-1"))
            except ValueError:
                return self._root_path
        return self._root_path
