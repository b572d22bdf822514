"""
The Lua scripts, read once, and how they are called: EVALSHA in a pipeline, one round trip.

redis-py's own script object asks SCRIPT EXISTS before every pipeline, a second round trip for each
batch. Here NOSCRIPT is the exception: the scripts are loaded and the refused calls are made again,
which is safe because a refused call did nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import BusyLoadingError, MasterDownError, NoScriptError, ReadOnlyError, ResponseError

from service import metrics
from service.store.connection import doubt, run_of
from service.store.redis import translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from redis.asyncio.connection import Connection

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
COMPACT = read("compact")
SWEEP = read("sweep")
ALL = (
    *(RANK, SLICE_AT, SLICE_AFTER, ROWS_OF, NEIGHBORS, HISTOGRAM),
    *(PUT, APPLY, BEGIN, STORE_OBJECTS, PEEK, FIX, GHOSTS, RESYNC, TAKE),
    *(COMPACT, SWEEP),
)

Command = tuple[Any, ...]
"""A plain command, or a script followed by its number of keys, keys and arguments."""


class Caller(msgspec.Struct, frozen=True):
    """
    The first argument of a script that checks its caller: the history of Postgres that the caller reads.

    The run_id of the server is appended when the call is sent, because it belongs to the connection.
    """

    source: str


async def pipeline(client: Client, commands: Sequence[Command]) -> list[Any]:
    """
    Send all commands to one server in one round trip and return their replies in order.

    Raises `Unavailable` or `StoreBug` for the first reply that is an error; the commands behind it have
    been carried out all the same.
    """
    with _calling(client, commands):
        async with _connected(client) as connection:
            replies = await _send(client, connection, commands)
            refused = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if refused:
                # Over the same connection: another one may lead to another server, which may lack the scripts, too.
                await _send(client, connection, [("SCRIPT", "LOAD", script.text) for script in ALL])
                again = await _send(client, connection, [commands[index] for index in refused])
                for index, reply in zip(refused, again, strict=True):
                    replies[index] = reply
        _raise_first(replies)
    return replies


async def transaction(client: Client, commands: Sequence[Command]) -> tuple[str, list[Any]]:
    """
    Send plain commands between which no other client's command comes; return the server's run_id, and the replies.

    The run_id is "" if the server does not tell it. One round trip; raises as `pipeline` does.
    """
    with _calling(client, commands):
        async with client.pipeline(transaction=True) as pipe:
            # The pipeline releases it.
            pipe.connection = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]  # theirs
            run = run_of(pipe.connection)
            for command in commands:
                pipe.execute_command(*command)
            replies = await pipe.execute(raise_on_error=False)
        _raise_first(replies)
    return run, replies


@contextmanager
def _calling(client: Client, commands: Sequence[Command]) -> Iterator[None]:
    name = commands[0][0] if commands else "nothing"
    with metrics.redis_call(name.name if isinstance(name, Script) else str(name).lower()), translated():
        try:
            yield
        except (ReadOnlyError, MasterDownError, BusyLoadingError):
            # A master never answers this, so the address may lead to another server by now.
            doubt(client)
            raise


@asynccontextmanager
async def _connected(client: Client) -> AsyncIterator[Connection]:
    """Hold one connection for the block. A connection whose call failed has closed itself before it is released."""
    pool = client.connection_pool
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # theirs
    try:
        yield connection
    finally:
        # Shielded, because a release that is cancelled halfway would leave the connection counted as in use.
        await asyncio.shield(pool.release(connection))


async def _send(client: Client, connection: Connection, commands: Sequence[Command]) -> list[Any]:
    run = run_of(connection)
    await connection.send_packed_command(connection.pack_commands([_arguments(command, run) for command in commands]))
    replies: list[Any] = []
    for name, *_ in commands:
        try:
            replies.append(await client.parse_response(connection, "EVALSHA" if isinstance(name, Script) else name))
        except ResponseError as error:
            replies.append(error)
    return replies


def _arguments(command: Command, run: str) -> Command:
    script, *rest = command
    if not isinstance(script, Script):
        return command
    first = 1 + rest[0]
    if isinstance(caller := rest[first], Caller):
        rest[first] = f"{caller.source}@{run}"
    return ("EVALSHA", script.sha, *rest)


def _raise_first(replies: Sequence[Any]) -> None:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
