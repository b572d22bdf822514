"""
Many users at once: a session through which they come into Postgres chunk by chunk.

What has been taken is noted in a temporary table beside the users, so that an import of any length needs no
more memory than one chunk, and a dry run sees what it would have done by now.
"""

from __future__ import annotations

from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg

from service.model import NewUser, UserId
from service.store.postgres import CONNECT_SECONDS, SESSION_OPTIONS, load_queries, translated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_QUERIES: dict[str, Any] = dict(load_queries(Path(__file__).parent / "bulk.sql"))
# Left to itself the planner would read the whole table for a chunk of it.
_OPTIONS = (
    f"{SESSION_OPTIONS} -c statement_timeout=60s -c jit=off"
    " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
)
_RACES = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.LockNotAvailable,
)


class Raced(Exception):
    """Somebody else wrote the same users or names first; nothing of the transaction is left."""


class Known(msgspec.Struct):
    """Who has the ids and lower-case names of a chunk, and which earlier line of the import took them."""

    users: dict[UserId, NewUser] = {}
    owners: dict[str, UserId] = {}
    lines_by_id: dict[UserId, int] = {}
    lines_by_name: dict[str, int] = {}


class Plan(msgspec.Struct):
    """
    What a chunk writes: new users; known ones, under their name or (in the order of the lines) another.

    `taken` notes the line, the id and the lower-case name of everything that is not to be taken again,
    users that stay as they are included.
    """

    created: list[NewUser] = []
    rated: list[NewUser] = []
    renamed: list[NewUser] = []
    taken: list[tuple[int, UserId, str]] = []


class Intake:
    """A session on the primary that takes users in, in transactions; made by `open_intake`."""

    def __init__(self, connection: psycopg.Connection, *, dry_run: bool) -> None:
        self._connection = connection
        self._dry_run = dry_run

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """
        Commit at the end of the block, or leave nothing of it.

        Raises `Raced` if the same should be tried again, `Unavailable`, and `OutcomeUnknown` when the
        connection broke during the commit.
        """
        try:
            with translated():
                try:
                    yield
                except _RACES as error:
                    raise Raced from error
            with translated(writing=True):
                self._connection.commit()
        except BaseException:
            with suppress(psycopg.Error):
                self._connection.rollback()
            raise

    def prepare(self) -> None:
        """Make the session's temporary objects, which end with it."""
        self._connection.execute(_QUERIES["open"])
        if self._dry_run and not self._answer("has_schema"):
            self._connection.execute(_QUERIES["no_users"])
        self._connection.execute(_QUERIES["present_dry" if self._dry_run else "present"])

    def is_empty(self) -> bool:
        """Whether there is no user at all."""
        return not self._answer("any_user")

    def known(self, ids: Sequence[UserId], names: Sequence[str]) -> Known:
        """Return what is known of these ids and lower-case names now. O(chunk * log n)."""
        known = Known()
        for line, user_id, name, rating in self._connection.execute(_QUERIES["known"], {"ids": ids, "names": names}):
            if line is None:
                known.users[user_id] = NewUser(user_id, name, rating)
                known.owners[name.lower()] = user_id
            else:
                known.lines_by_id[user_id] = line
                known.lines_by_name[name] = line
        return known

    def write(self, plan: Plan) -> int:
        """Write a chunk, or only note it in a dry run; returns how many known users that changed."""
        changed = len(plan.rated) + len(plan.renamed)
        if not self._dry_run:
            changed = self._change(plan) if changed else 0
            # In the order of the service's own inserts, so that they wait for each other one way only.
            created = sorted(plan.created, key=lambda user: (user.username.lower(), user.id))
            self._copy("create", ((user.id, user.username, user.rating) for user in created))
        self._copy("note", plan.taken)
        return changed

    def _change(self, plan: Plan) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute(_QUERIES["hold"], {"ids": [user.id for user in (*plan.rated, *plan.renamed)]})
            cursor.execute(
                _QUERIES["rate"],
                {"ids": [user.id for user in plan.rated], "ratings": [user.rating for user in plan.rated]},
            )
            changed = cursor.rowcount
            if plan.renamed:
                # One after the other: a name may be free only because a line before has given it up.
                cursor.executemany(_QUERIES["rename"], [msgspec.structs.asdict(user) for user in plan.renamed])
                changed += cursor.rowcount
        return changed

    def _copy(self, query: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with self._connection.cursor() as cursor, cursor.copy(_QUERIES[query]) as copy:
            for row in rows:
                copy.write_row(row)

    def _answer(self, query: str) -> bool:
        ((answer,),) = self._connection.execute(_QUERIES[query]).fetchall()
        return bool(answer)


@contextmanager
def open_intake(database_url: str, *, dry_run: bool = False) -> Iterator[Intake]:
    """
    Open a session that takes users in. In a dry run it changes nothing, and needs no schema.

    Raises `Unavailable` if Postgres cannot be reached.
    """
    with translated():
        connection = psycopg.connect(database_url, connect_timeout=CONNECT_SECONDS, options=_OPTIONS)
    with closing(connection):
        intake = Intake(connection, dry_run=dry_run)
        with intake.transaction():
            intake.prepare()
        yield intake
