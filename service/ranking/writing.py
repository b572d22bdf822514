"""
The writes: committed in Postgres first and carried to the mirror second, so that it only holds what is committed.

Creations, ratings and deletions are gathered into batches. What needs a transaction of its own (many ratings at
once, a rename, whatever carries an Idempotency-Key) goes beside them, few at a time. Within one process the writes of
one user go one after the other, in the order they came, whichever way they go. A write that meets a lock of another
session leaves its batch and waits for the lock beside it (`lock_waits`).
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import structlog

from service import failpoints
from service.errors import LadderError, Locked, OutcomeUnknown, explain
from service.model import NewName, NewRating, NewUser, Placed, Rated, Removal, Removed, Token, User, UserId
from service.ranking.coalesce import Coalescer, Turns
from service.ranking.deadline import within
from service.ranking.guarded import Lookup
from service.ranking.lock_waits import LockWaits

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence

    from service.model import OnceOnly, Version
    from service.ranking.guarded import GuardedMirror
    from service.store.ledger import Ledger

WRITE_ROWS = 100
"""Writes in one transaction, and in the put that follows it."""
WRITE_SECONDS = 5.0
"""How long a write is waited for. Its outcome is unknown then: it may still be committed."""
BESIDE_SECONDS = 0.05
"""How long a batch of ratings goes alone: longer than a commit takes, and shorter than a wait for a lock."""
FIRST_PATIENCE_MS, NEXT_PATIENCE_MS = 30, 10
"""How long a batch of creations, and each part of it after that, waits for a name that another session is taking."""
ALONE_PATIENCE_MS = 50
"""How long a write with a transaction of its own waits for a lock before it makes room for the next one."""
ALONE = 2
"""Writes with a transaction of their own under way; the other connections are the batches'."""

TABLE_LOCK_SECONDS = 1.0
"""A batch of creations that gave up on a lock after this long waited for the table, not for a name."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Written(msgspec.Struct, frozen=True):
    """A committed write and what became of it in the mirror; `replayed` if an earlier request carried it out."""

    user: User
    previous_rating: int | None
    placed: Placed
    replayed: bool = False

    @property
    def token(self) -> Token:
        """What a reader presents to see this write."""
        return Token(self.user.id, self.user.version)


class Deleted(msgspec.Struct, frozen=True):
    """A committed deletion and what became of it in the mirror."""

    token: Token
    placed: Placed


@contextmanager
def _unknown_after_a_defect() -> Iterator[None]:
    """
    Turn a defect into `OutcomeUnknown`: it may have come after the commit.

    Every other error of a batch means that it has changed nothing, so its items may be carried out again one by one.
    """
    try:
        yield
    except LadderError:
        raise
    except Exception as error:
        _log.error("write.failed", exc_info=error)
        message = "The write may have been carried out, but its result could not be read."
        raise OutcomeUnknown(message) from error


class _Alone(msgspec.Struct, frozen=True):
    """A write with a transaction of its own; `run` takes the ms to wait for a lock and raises `Locked` after them."""

    keys: tuple[Hashable, ...]
    run: Callable[[int], Awaitable[Any]]


class Writes:
    """What changes users in a ledger, and brings it to its mirror."""

    def __init__(self, ledger: Ledger, guarded: GuardedMirror) -> None:
        self._ledger = ledger
        self._guarded = guarded
        self._locked = LockWaits()
        turns = Turns()
        self._created: Coalescer[NewUser, Written] = Coalescer(
            self._create, shared=False, keys=_user, turns=turns, max_batch=WRITE_ROWS, name="creations"
        )
        self._rated: Coalescer[NewRating, Written] = Coalescer(
            self._rate,
            shared=False,
            keys=_user,
            turns=turns,
            max_batch=WRITE_ROWS,
            beside=BESIDE_SECONDS,
            name="ratings",
        )
        self._removed: Coalescer[Removal, Deleted] = Coalescer(
            self._remove,
            shared=False,
            keys=_user,
            turns=turns,
            max_batch=WRITE_ROWS,
            max_in_flight=1,
            name="deletions",
        )
        self._alone: Coalescer[_Alone, Any] = Coalescer(
            self._run_alone,
            shared=False,
            keys=lambda item: item.keys,
            turns=turns,
            max_batch=1,
            max_in_flight=ALONE,
            name="alone",
        )

    async def drain(self) -> None:
        """Return when no write is under way."""
        for gathered in (self._created, self._rated, self._removed, self._alone):
            await gathered.drain()

    async def create(self, user: NewUser, *, once: OnceOnly | None = None) -> Written:
        """Create a user; raises `IdTaken`, `UsernameTaken`, `KeyReused`, `Unavailable`, `OutcomeUnknown`."""
        if once:
            return _only(await self._once(once, user))
        async with within(WRITE_SECONDS, OutcomeUnknown()):
            return await self._created(user)

    async def rate(
        self,
        user_id: UserId,
        rating: int,
        *,
        wanted: tuple[Version, ...] | None = None,
        relative: bool = False,
        once: OnceOnly | None = None,
    ) -> Written:
        """
        Set a user's rating, or add to it; a rating that is already theirs changes nothing, not even the version.

        Raises `NotFound`, `PreconditionFailed` (the version is none of the `wanted` ones), `RatingOutOfRange`,
        `KeyReused`, `Unavailable`, `OutcomeUnknown`.
        """
        item = NewRating(user_id, rating, wanted, relative)
        if once:
            return _only(await self._once(once, [item]))
        async with within(WRITE_SECONDS, OutcomeUnknown()):
            return await self._rated(item)

    async def rate_all(
        self, ratings: Sequence[NewRating], *, once: OnceOnly | None = None
    ) -> list[Written | LadderError]:
        """
        Set the ratings of different users in one transaction; per item the user, or `NotFound`.

        Raises `KeyReused`, `Unavailable`, `OutcomeUnknown`. O(ratings * log n).
        """
        if once:
            return await self._once(once, ratings)

        async def rate(patience_ms: int) -> list[Written | LadderError]:
            outcomes = await self._ledger.rate(ratings, patience_ms=patience_ms)
            if any(isinstance(outcome, Locked) for outcome in outcomes):
                raise Locked
            return await self._carry_over(outcomes)

        return await self._by_itself([item.id for item in ratings], rate)

    async def rename(self, user_id: UserId, username: str, *, wanted: tuple[Version, ...] | None = None) -> Written:
        """
        Give a user another name; one that is already theirs changes nothing.

        Raises `NotFound`, `PreconditionFailed`, `UsernameTaken`, `Unavailable`, `OutcomeUnknown`.
        """

        async def rename(patience_ms: int) -> list[Written | LadderError]:
            name = NewName(user_id, username, wanted)
            return await self._carry_over([await self._ledger.rename(name, patience_ms=patience_ms)])

        return _only(await self._by_itself([user_id], rename))

    async def remove(self, user_id: UserId, *, wanted: tuple[Version, ...] | None = None) -> Deleted:
        """Delete a user; raises `NotFound`, `PreconditionFailed`, `Unavailable`, `OutcomeUnknown`."""
        async with within(WRITE_SECONDS, OutcomeUnknown()):
            return await self._removed(Removal(user_id, wanted))

    async def _create(
        self, users: Sequence[NewUser], patience_ms: int = FIRST_PATIENCE_MS
    ) -> list[Written | LadderError | Future[Any]]:
        begun = time.monotonic()
        try:
            return [*await self._insert(users, patience_ms)]
        except Locked:
            # Of the whole table: its parts would have to wait for it as well.
            if time.monotonic() - begun > TABLE_LOCK_SECONDS:
                raise
        if len(users) == 1:
            return [self._locked.add(partial(self._create_one, users[0]))]
        # Postgres does not tell which of them met the lock; the batch changed nothing.
        half = len(users) // 2
        return [*await self._create_part(users[:half]), *await self._create_part(users[half:])]

    async def _create_part(self, users: Sequence[NewUser]) -> Sequence[Written | LadderError | Future[Any]]:
        try:
            return await self._create(users, NEXT_PATIENCE_MS)
        except LadderError as error:
            # It belongs to this part alone: another may be committed.
            return [error] * len(users)

    async def _create_one(self, user: NewUser, patience_ms: int) -> Written | LadderError:
        (written,) = await self._insert([user], patience_ms)
        return written

    async def _insert(self, users: Sequence[NewUser], patience_ms: int) -> list[Written | LadderError]:
        with _unknown_after_a_defect():
            return await self._carry_over(await self._ledger.create(users, patience_ms=patience_ms))

    async def _rate(self, ratings: Sequence[NewRating]) -> list[Written | LadderError | Future[Any]]:
        with _unknown_after_a_defect():
            written = await self._carry_over(await self._ledger.rate(ratings))
        return [
            self._locked.add(partial(self._rate_one, rating)) if isinstance(outcome, Locked) else outcome
            for rating, outcome in zip(ratings, written, strict=True)
        ]

    async def _rate_one(self, rating: NewRating, patience_ms: int) -> Written | LadderError:
        with _unknown_after_a_defect():
            (written,) = await self._carry_over(await self._ledger.rate([rating], patience_ms=patience_ms))
        return _unlocked(written)

    async def _remove(self, removals: Sequence[Removal]) -> list[Deleted | LadderError | Future[Any]]:
        with _unknown_after_a_defect():
            deleted = await self._bury(await self._ledger.remove(removals))
        return [
            self._locked.add(partial(self._remove_one, removal)) if isinstance(outcome, Locked) else outcome
            for removal, outcome in zip(removals, deleted, strict=True)
        ]

    async def _remove_one(self, removal: Removal, patience_ms: int) -> Deleted | LadderError:
        with _unknown_after_a_defect():
            (deleted,) = await self._bury(await self._ledger.remove([removal], patience_ms=patience_ms))
        return _unlocked(deleted)

    async def _bury(self, outcomes: Sequence[Removed | LadderError]) -> list[Deleted | LadderError]:
        removed = [outcome for outcome in outcomes if isinstance(outcome, Removed)]
        placed = iter(await self._put(removed))
        return [
            Deleted(Token(outcome.id, outcome.version), next(placed)) if isinstance(outcome, Removed) else outcome
            for outcome in outcomes
        ]

    async def _by_itself(
        self, keys: Sequence[Hashable], run: Callable[[int], Awaitable[list[Written | LadderError]]]
    ) -> list[Written | LadderError]:
        async with within(WRITE_SECONDS, OutcomeUnknown()):
            outcomes: list[Written | LadderError] = await self._alone(_Alone(tuple(keys), run))
            return outcomes

    async def _run_alone(self, batch: Sequence[_Alone]) -> list[Any]:
        (item,) = batch
        try:
            return [await self._run_one(item, ALONE_PATIENCE_MS)]
        except Locked:
            return [self._locked.add(partial(self._run_one, item))]

    async def _run_one(self, item: _Alone, patience_ms: int) -> Any:
        with _unknown_after_a_defect():
            return await item.run(patience_ms)

    async def _once(self, once: OnceOnly, write: NewUser | Sequence[NewRating]) -> list[Written | LadderError]:
        """Carry a write out unless its key was used, and answer as it was answered then."""

        async def carry_out(patience_ms: int) -> list[Written | LadderError]:
            kept = await self._ledger.once(once, write, patience_ms=patience_ms)
            if kept.placed is None:
                # An earlier process may have committed this write and died before it settled: its put may be missing,
                # and a second put of the same version is harmless.
                rated = [outcome for outcome in kept.outcomes if isinstance(outcome, Rated)]
                placed = await self._put(rated)
                kept = msgspec.structs.replace(kept, placed=placed)
                try:
                    # A repetition of the request may have settled its answer first.
                    settled = await self._ledger.settle(once, kept)
                    kept = msgspec.structs.replace(settled, replayed=kept.replayed)
                except Exception as error:  # noqa: BLE001  it is committed, whatever this is
                    # It is committed; a repetition will find the same user, and their rank of that moment.
                    _log.warning("idempotency.unsettled", reason=explain(error))
            return _written(kept.outcomes, kept.placed or [], replayed=kept.replayed)

        users = [write] if isinstance(write, NewUser) else write
        return await self._by_itself([("key", once.key), *(user.id for user in users)], carry_out)

    async def _carry_over(self, outcomes: Sequence[Rated | LadderError]) -> list[Written | LadderError]:
        rated = [outcome for outcome in outcomes if isinstance(outcome, Rated)]
        return _written(outcomes, await self._put(rated))

    async def _put(self, committed: Sequence[Rated | Removed]) -> list[Placed]:
        """
        Put what has just been committed into the mirror.

        Committed first: a put before the commit could show a write that is then rolled back. A put that
        is lost, late or refused is harmless: the version decides, and the tailer brings what is missing.
        """
        if not committed:
            return []
        await failpoints.reach("after_commit")
        placed = list(await self._guarded.put(committed))
        if len(committed) <= WRITE_ROWS:
            return placed
        # Several script calls: the ranks of the first were counted before the last had come.
        return await self._ranked(committed, placed)

    async def _ranked(self, committed: Sequence[Rated | Removed], placed: Sequence[Placed]) -> list[Placed]:
        rated = [item for item in committed if isinstance(item, Rated)]
        try:
            sightings = await self._guarded.ranks([Lookup(item.user.id) for item in rated])
        except LadderError:
            return [Placed("pending") for _ in placed]
        except Exception as error:  # noqa: BLE001  they are committed, whatever the mirror answers
            self._guarded.report_defect(error)
            return [Placed("pending") for _ in placed]
        found: list[Placed] = []
        for item, place, seen in zip(rated, placed, sightings, strict=True):
            standing = None if isinstance(seen, LadderError) else seen.standing
            if place.outcome == "applied" and standing and standing.version == item.user.version:
                found.append(Placed(place.outcome, standing.rank, standing.position, place.previous_rank))
            else:
                found.append(place)
        return found


def _user(item: NewUser | NewRating | Removal) -> tuple[UserId]:
    return (item.id,)


def _unlocked(outcome: T) -> T:
    if isinstance(outcome, Locked):
        raise outcome
    return outcome


def _written(
    outcomes: Sequence[Rated | LadderError], placed: Sequence[Placed], *, replayed: bool = False
) -> list[Written | LadderError]:
    places = iter(placed)
    return [
        Written(outcome.user, outcome.previous_rating, next(places), replayed)
        if isinstance(outcome, Rated)
        else outcome
        for outcome in outcomes
    ]


def _only(outcomes: Sequence[Written | LadderError]) -> Written:
    (outcome,) = outcomes
    if isinstance(outcome, LadderError):
        raise outcome
    return outcome
