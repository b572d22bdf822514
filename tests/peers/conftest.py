"""The service of a module, as the tests of the API have it."""

from __future__ import annotations

from tests.api.conftest import fresh_database, service

__all__ = ["fresh_database", "service"]
