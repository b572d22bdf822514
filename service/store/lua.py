"""
The Lua scripts, read once, and how they are called: EVALSHA in a pipeline, one round trip.

redis-py's own script object asks SCRIPT EXISTS before every pipeline, a second round trip for each
batch. Here NOSCRIPT is the exception: the scripts are loaded and the refused calls are made again,
which is safe because a refused call did nothing.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import NoScriptError

from service import metrics
from service.store.redis import translate, translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.store.redis import Client

DIRECTORY = next(
    place
    for place in (Path(__file__).parents[1] / "lua", Path(__file__).parents[2] / "lua")
    if (place / "rank.lua").exists()
)


class Script(msgspec.Struct, frozen=True):
    """A script's text with its includes in place, and the SHA-1 that Redis knows it by."""

    name: str
    text: str
    sha: str


def read(name: str, directory: Path = DIRECTORY) -> Script:
    """Read a script; raises FileNotFoundError for it or an include that is not there."""
    text = re.sub(
        r"^-- @include (\w+)$",
        lambda match: (directory / "include" / f"{match[1]}.lua").read_text(encoding="utf-8"),
        (directory / f"{name}.lua").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


RANK = read("rank")
SLICE_AT = read("slice_at")
SLICE_AFTER = read("slice_after")
ROWS_OF = read("rows_of")
NEIGHBORS = read("neighbors")
HISTOGRAM = read("histogram")
PUT = read("put")
APPLY = read("apply")
BEGIN = read("begin")
STORE_OBJECTS = read("store_objects")
PEEK = read("peek")
FIX = read("fix")
GHOSTS = read("ghosts")
RESYNC = read("resync")
TAKE = read("take")
ALL = (
    *(RANK, SLICE_AT, SLICE_AFTER, ROWS_OF, NEIGHBORS, HISTOGRAM),
    *(PUT, APPLY, BEGIN, STORE_OBJECTS, PEEK, FIX, GHOSTS, RESYNC, TAKE),
)

Command = tuple[Any, ...]
"""A plain command, or a script followed by its number of keys, keys and arguments."""


async def pipeline(client: Client, commands: Sequence[Command], *, at_once: bool = False) -> list[Any]:
    """
    Send all commands in one round trip and return their replies in order.

    With `at_once` no other client's command comes between them; that is for plain commands alone.

    Raises `Unavailable` or `StoreBug` for the first reply that is an error; the commands behind it have
    been carried out all the same.
    """
    with metrics.redis_call(_operation(commands)), translated():
        replies = await _send(client, commands, at_once=at_once)
        refused = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if refused:
            await _send(client, [("SCRIPT", "LOAD", script.text) for script in ALL])
            for index, reply in zip(refused, await _send(client, [commands[index] for index in refused]), strict=True):
                replies[index] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise translate(reply) from reply
    return replies


def _operation(commands: Sequence[Command]) -> str:
    name = commands[0][0] if commands else "nothing"
    return name.name if isinstance(name, Script) else str(name).lower()


async def _send(client: Client, commands: Sequence[Command], *, at_once: bool = False) -> list[Any]:
    async with client.pipeline(transaction=at_once) as pipe:
        for name, *arguments in commands:
            if isinstance(name, Script):
                pipe.execute_command("EVALSHA", name.sha, *arguments)
            else:
                pipe.execute_command(name, *arguments)
        return await pipe.execute(raise_on_error=False)
