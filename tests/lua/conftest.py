"""The raw scripts over an empty Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from .calls import Scripts

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def scripts(redis_url: str) -> Iterator[Scripts]:
    """The scripts, over a client that decodes replies."""
    with redis.Redis.from_url(redis_url, protocol=2, decode_responses=True) as client:
        yield Scripts(client)
