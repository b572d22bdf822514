"""Who is to blame when there is no connection to be lent: Postgres, or we who hold all of them."""

from __future__ import annotations

import contextlib

import pytest

from service.errors import Overloaded, Unavailable
from service.store.postgres import FALLBACK_CONNECTIONS, Postgres, borrowed


async def test_a_pool_whose_connections_are_all_lent_is_overloaded(database_url: str) -> None:
    """Postgres is well: no breaker may open over it."""
    postgres = Postgres(database_url)
    await postgres.open()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(postgres.close)
        await postgres.fallback.wait()
        for _ in range(FALLBACK_CONNECTIONS):
            while True:
                # The pool opens one connection after the other.
                with contextlib.suppress(Overloaded, Unavailable):
                    await stack.enter_async_context(borrowed(postgres.fallback))
                    break
        with pytest.raises(Overloaded):
            await stack.enter_async_context(borrowed(postgres.fallback))


async def test_a_pool_without_connections_is_a_postgres_that_is_away() -> None:
    """The driver's pool says the same in both cases."""
    postgres = Postgres("postgresql://ladder@127.0.0.1:1/ladder")
    await postgres.open()
    try:
        with pytest.raises(Unavailable) as caught:
            async with borrowed(postgres.fallback):
                pass
    finally:
        await postgres.close()

    assert Unavailable is caught.type
