"""Asks an operator before a command takes more than a tenth of its users from a board."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, urlsplit

from service.errors import StoreBug, Unavailable
from service.progress import progress
from service.ranking.loss import Loss, expected_loss
from service.ranking.repair import NotSafe
from service.store import redis
from service.store.feed import Feed
from service.store.inspection import Inspection
from service.store.mirror import Mirror, Refused

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from service.store.mirror import State


class Foreseen(NamedTuple):
    """What the board would lose, and the name of the database that it would be made equal to."""

    loss: Loss
    database: str


async def foresee(database_url: str, redis_url: str, concerns: Callable[[str, State, bool], bool]) -> Foreseen | None:
    """
    Find out what the board would lose, if there is one with users on it and the command `concerns` it.

    That is asked with the history of the database, what the board says of itself, and whether the database is empty.
    """
    async with redis.connect_feed(redis_url) as client, Feed(database_url) as feed:
        state = await Mirror(client).state()
        try:
            source = await feed.source()
        except StoreBug:
            # The command itself says what is wrong with this database.
            return None
        if state is None or not state.users or not concerns(source, state, await feed.is_empty()):
            return None
        with progress("Looked up", state.users) as show:
            try:
                loss = await expected_loss(
                    feed, Inspection(client), state, progress=lambda users: show(users, f"{users:,} users of the board")
                )
            except Refused as error:
                raise Unavailable("the board was started anew meanwhile") from error
        return Foreseen(loss, feed.place)


def require(options: argparse.Namespace, intent: str, foreseen: Foreseen, redis_url: str) -> None:
    """
    Say what is about to happen; return if the loss is small, --yes was given, or the terminal's answer is yes.

    Raises `NotSafe` otherwise. Waits for the answer as long as it takes: no session may be open meanwhile.
    """
    loss, database = foreseen
    lost = f"{'' if loss.is_whole else 'at least '}{loss.lost:,}"
    text = (
        f"{intent}: the board at {board_name(redis_url)} has {loss.board:,} users, the database {database} has"
        f" {loss.database:,}, and {lost} users of the board are not among them"
    )
    if loss.is_large and not options.yes and not options.dry_run:
        if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
            message = f"{text}; the board would lose them, so this needs --yes"
            raise NotSafe(message)
        print(f"{text}. The board loses them.\nGo on? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise NotSafe("nothing was changed, because the answer was not yes")
        return
    print(f"{text}.", file=sys.stderr)


def board_name(redis_url: str) -> str:
    """Return where a board is, without user and password."""
    parts = urlsplit(redis_url)
    named = parse_qs(parts.query).get("db", [""])[0]
    if parts.scheme == "unix":
        return f"{parts.path} (database {named or 0})"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
    return f"{host}:{parts.port or 6379} (database {named or parts.path.strip('/') or 0})"
