"""A Chromium per module: its driver keeps an event loop running, beside which no asynchronous test could run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from service import demo
from tests.api.conftest import fresh_database, service
from tests.api.serving import Service, wait_until

from .visit import Visit, Visitors, chromium

__all__ = ["fresh_database", "service"]

CROWD = 240


@pytest.fixture(scope="module")
def visitors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitors]:
    """A running Chromium."""
    with chromium(tmp_path_factory.mktemp("pictures")) as running:
        yield running


@pytest.fixture(scope="module")
def crowd(visitors: Visitors, service: Service) -> Service:  # noqa: ARG001  without a browser no service is needed
    """A service with made-up users, in the mirror too."""
    demo.fill(service.settings.database_url, CROWD)
    wait_until(service.is_mirrored)
    return service


@pytest.fixture
def visit(visitors: Visitors, crowd: Service) -> Iterator[Callable[..., Visit]]:
    """Open tabs, which are closed after the test; none of them may have asked another host for anything."""
    base = f"http://127.0.0.1:{crowd.settings.port}"
    opened: list[Visit] = []
    with ExitStack() as stack:

        def visiting(**options: Any) -> Visit:
            opened.append(stack.enter_context(visitors.visit(base, **options)))
            return opened[-1]

        yield visiting
        assert [] == [url for each in opened for url in each.strangers()]
