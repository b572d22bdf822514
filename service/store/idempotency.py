"""
Writes that are carried out once, however often they are asked for: what came of them is kept under their key.

The key is claimed, the write made and its outcome kept in one transaction, so after a crash there are all or none.
A request with a claimed key waits for that transaction. The answer is known only when the mirror has placed the
write, after the commit: it is settled then, once, and every repetition gets the settled answer. A request that was
never answered, because its process died in between, is answered by the first repetition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from service import failpoints
from service.errors import (
    IdTaken,
    KeyReused,
    LadderError,
    NotFound,
    PreconditionFailed,
    RatingOutOfRange,
    StoreBug,
    UsernameTaken,
)
from service.model import NewUser, Placed, Rated
from service.store import writing
from service.store.postgres import ANSWER_SECONDS, QUERIES, answering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.model import NewRating, OnceOnly
    from service.store.postgres import Connection

FORGET_ROWS = 1000
_DEFINITE: dict[str, type[LadderError]] = {
    kind.__name__: kind for kind in (IdTaken, NotFound, PreconditionFailed, RatingOutOfRange, UsernameTaken)
}
"""Refusals that are the answer; after any other nothing is kept, and the request may be carried out later."""


class _Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    rated: Rated | None = None
    refusal: str = ""
    message: str = ""


class _Record(msgspec.Struct, frozen=True):
    outcomes: list[_Outcome]
    placed: list[Placed] | None


class Kept(msgspec.Struct, frozen=True):
    """
    What came of a write, item by item, and of those that were committed, in order, what the mirror made of them.

    `placed` is None until the answer is settled. `replayed` is whether the write was carried out earlier.
    """

    outcomes: list[Rated | LadderError]
    placed: list[Placed] | None = None
    replayed: bool = False


async def carry_out(
    connection: Connection, once: OnceOnly, write: NewUser | Sequence[NewRating], *, patience_ms: int
) -> Kept:
    """Make the write and keep what came of it, or return what was kept; locks are waited for as in `writing`."""
    named = {"key": once.key, "request": once.request}
    async with connection.transaction():
        patience = {"patience": f"{patience_ms}ms"}
        claimed = await (await connection.execute(QUERIES["claim"], named | patience)).fetchone()
        if claimed is None:
            return await _kept(connection, once)
        await failpoints.reach("before_commit")
        outcomes = await _write(connection, write, patience_ms)
        for outcome in outcomes:
            if isinstance(outcome, LadderError) and type(outcome).__name__ not in _DEFINITE:
                raise outcome
        kept = Kept(outcomes, None if any(isinstance(outcome, Rated) for outcome in outcomes) else [])
        await connection.execute(
            QUERIES["keep"], {**named, "outcome": _encode(kept), "settled": kept.placed is not None}
        )
    return kept


async def settle(connection: Connection, once: OnceOnly, kept: Kept) -> Kept:
    """Keep an answer, or return the one that somebody else has settled meanwhile."""
    parameters = {"key": once.key, "request": once.request, "outcome": _encode(kept), "settled": True}
    first = await (await connection.execute(QUERIES["keep"], parameters)).fetchone()
    return kept if first else await _kept(connection, once)


async def forget(connection: Connection) -> int:
    """Remove the keys that are older than a day, in small transactions; returns how many."""
    removed = 0
    while True:
        with answering(connection, ANSWER_SECONDS):
            ((some,),) = await (await connection.execute(QUERIES["forget"], {"limit": FORGET_ROWS})).fetchall()
        removed += int(some)
        if some < FORGET_ROWS:
            return removed


async def _write(
    connection: Connection, write: NewUser | Sequence[NewRating], patience_ms: int
) -> list[Rated | LadderError]:
    if not isinstance(write, NewUser):
        return await writing.rate(connection, write, patience_ms=patience_ms)
    (created,) = await writing.create(connection, [write], patience_ms=patience_ms)
    if created is not None:
        return [created]
    return list((await writing.clashes(connection, [write])).values())


async def _kept(connection: Connection, once: OnceOnly) -> Kept:
    row = await (await connection.execute(QUERIES["kept"], {"key": once.key})).fetchone()
    if row is None or row[1] is None:
        message = "an Idempotency-Key has no outcome"
        raise StoreBug(message)
    if bytes(row[0]) != once.request:
        raise KeyReused
    record = msgspec.json.decode(bytes(row[1]), type=_Record)
    outcomes = [outcome.rated or _DEFINITE[outcome.refusal](outcome.message) for outcome in record.outcomes]
    return Kept(outcomes, record.placed, replayed=True)


def _encode(kept: Kept) -> bytes:
    outcomes = [
        _Outcome(rated=outcome)
        if isinstance(outcome, Rated)
        else _Outcome(refusal=type(outcome).__name__, message=str(outcome))
        for outcome in kept.outcomes
    ]
    return msgspec.json.encode(_Record(outcomes, kept.placed))
