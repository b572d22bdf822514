"""How long a caller waits. What it waited for goes on, in a batch of which others may be waiting."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from service.errors import LadderError


@asynccontextmanager
async def within(seconds: float, otherwise: LadderError) -> AsyncIterator[None]:
    """
    Run the block, and raise `otherwise` when it has not ended after `seconds`.

    For waiting on a `Coalescer`, which gives up the result and not the call. A call to Postgres itself must
    not be cut off so: psycopg would wait for a cancellation, on another connection to the same silent server.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise otherwise from None
