"""
The buckets of tokens that limit how often a client may ask, shared by all processes.

A bucket is one instant in Redis (see `lua/take.lua`), on the server's clock, and gone when it is full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from service.store import lua
from service.store.keys import bucket

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.store.redis import Client


class Grant(msgspec.Struct, frozen=True):
    """How many tokens a client was given, and how many are left."""

    given: int
    left: int


class Buckets:
    """Buckets that gain `rate` tokens a second and hold `burst`, both 1..1,000,000."""

    def __init__(self, client: Client, *, rate: int, burst: int) -> None:
        self._client = client
        self._rate, self._burst = rate, burst

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()

    async def take(self, asked: Mapping[str, int], *, spare: int = 0) -> dict[str, Grant]:
        """
        Give each client as many tokens as it asks for, or as there are; one round trip, O(clients).

        A client whose bucket is more than half full gets up to `spare` more, to spend without asking.
        Raises `Unavailable`; the tokens may then have been taken.
        """
        commands: list[lua.Command] = [
            (lua.TAKE, 1, bucket(client), self._rate, self._burst, count, spare) for client, count in asked.items()
        ]
        replies = await lua.pipeline(self._client, commands)
        return {client: Grant(given, left) for client, (_, given, left) in zip(asked, replies, strict=True)}
