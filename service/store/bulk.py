"""
Many users at once: a session through which they come into Postgres chunk by chunk.

What has been taken is noted in a table beside the users, so that an import of any length needs no more memory than one
chunk, and a dry run sees what it would have done by now. That table is a temporary one, unless the import is to be
resumed after whatever ends it: then what it noted and how far it is are kept by the transactions that take its lines.
"""

from __future__ import annotations

from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import psycopg
from psycopg import sql

from service.errors import Unavailable
from service.model import NewUser, UserId
from service.store.postgres import load_queries, translated
from service.store.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_QUERIES: dict[str, Any] = dict(load_queries(Path(__file__).parent / "bulk.sql"))
# Left to itself the planner would read the whole table for a chunk of it.
_SETTINGS = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "statement_timeout": "60s"}
_BATCH_LINES = 10_000
_RACES = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.LockNotAvailable,
)


class Raced(Exception):
    """Somebody else wrote the same users or names first; nothing of the transaction is left."""


class Busy(Unavailable):
    """Another process imports the same list."""


class Progress(NamedTuple):
    """
    How far an import is: the last line it has judged, what became of all, and how much of the rejects is valid.

    `deferred` are the numbers of earlier lines that wait for the end of the list.
    """

    line: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: int = 0
    rejects: int = 0
    deferred: tuple[int, ...] = ()


class Asked(msgspec.Struct):
    """The ids and lower-case names of a chunk, and those among them that an earlier line may have taken."""

    ids: list[UserId]
    names: list[str]
    taken_ids: list[UserId] = []
    taken_names: list[str] = []


class Known(msgspec.Struct):
    """Who has the ids and lower-case names of a chunk, and which earlier line of the import took them."""

    users: dict[UserId, NewUser] = {}
    owners: dict[str, UserId] = {}
    lines_by_id: dict[UserId, int] = {}
    lines_by_name: dict[str, int] = {}


class Plan(msgspec.Struct):
    """
    What a chunk writes: new users; known ones, under their name or (in the order of the list) another.

    `parked` are users who give up their name first, so that another one can take it: they are renamed, too.

    `noted` is the line, the id and the lower-case name of what another line may try to take again, users that stay as
    they are included.
    """

    created: list[NewUser] = []
    rated: list[NewUser] = []
    renamed: list[NewUser] = []
    parked: list[UserId] = []
    noted: list[tuple[int, UserId, str]] = []


class Intake:
    """A session on the primary that takes users in, in transactions; made by `open_intake`."""

    def __init__(self, connection: psycopg.Connection, *, dry_run: bool, digest: bytes | None) -> None:
        self._connection = connection
        self._dry_run = dry_run
        self._digest = digest

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
        if self._digest is None:
            self._connection.execute(_QUERIES["open"])
        else:
            self._connection.execute(sql.SQL(_QUERIES["open_kept"]).format(list=sql.Literal(self._digest)))
        if self._dry_run and not self._answer("has_schema"):
            self._connection.execute(_QUERIES["no_users"])
        self._connection.execute(_QUERIES["present_dry" if self._dry_run else "present"])

    def begin(self, *, anew: bool = False) -> Progress:
        """
        Take the list for this session, and return how far it was taken; as if never with `anew`, or after a week.

        Raises `Busy` if another session has it for ten seconds more: that of a process that was killed ends sooner.
        """
        with self.transaction():
            self._connection.execute(_QUERIES["patient"])
            try:
                self._connection.execute(_QUERIES["own"], {"key": _key(self._list)})
            except psycopg.errors.LockNotAvailable as error:
                message = "another process imports the same list"
                raise Busy(message) from error
            if anew:
                # Whatever ends this before all of it is forgotten: the rest must not be taken for the whole.
                self._connection.execute(_QUERIES["expire"], {"list": self._list})
        self._sweep()
        with self.transaction():
            rows = self._connection.execute(_QUERIES["begin"], {"list": self._list}).fetchall()
        if not rows:
            return Progress()
        line, created, updated, unchanged, refused, rejects, deferred = rows[0]
        return Progress(line, created, updated, unchanged, refused, rejects, tuple(deferred))

    def keep(self, progress: Progress) -> None:
        """Note how far the import is, within the transaction that brought it there."""
        values = {**progress._asdict(), "deferred": list(progress.deferred)}
        self._connection.execute(_QUERIES["keep"], {"list": self._list, **values})

    def forget(self) -> None:
        """Forget the list, which has been imported to its end."""
        self._forget(self._list)

    def release(self) -> None:
        """Give up the list: behind a pooler the server's session does not end with this one."""
        if self._digest is not None:
            with suppress(psycopg.Error):
                self._connection.rollback()
                self._connection.execute(_QUERIES["release"])
                self._connection.commit()

    def _sweep(self) -> None:
        with self.transaction():
            lists = [row[0] for row in self._connection.execute(_QUERIES["stale"])]
        for found in lists:
            # Only under its lock, and if it is stale even then: its lines may be those of an import that has begun since.
            with self.transaction():
                is_free = self._answer("try_own", key=_key(found))
                is_stale = is_free and self._answer("is_stale", list=found)
            if is_stale:
                self._forget(found)
            if is_free:
                with self.transaction():
                    self._answer("disown", key=_key(found))

    def _forget(self, forgotten: bytes) -> None:
        deleted = _BATCH_LINES
        while deleted == _BATCH_LINES:
            with self.transaction():
                limits = {"list": forgotten, "limit": _BATCH_LINES}
                deleted = self._connection.execute(_QUERIES["forget_lines"], limits).rowcount
        with self.transaction():
            self._connection.execute(_QUERIES["forget"], {"list": forgotten})

    @property
    def _list(self) -> bytes:
        if self._digest is None:
            message = "only an import with a digest is kept"
            raise RuntimeError(message)
        return self._digest

    def is_empty(self) -> bool:
        """Whether there is no user at all."""
        return not self._answer("any_user")

    def known(self, asked: Asked) -> Known:
        """Return what is known of these ids and lower-case names now. O(chunk * log n)."""
        known = Known()
        for line, user_id, name, rating in self._connection.execute(_QUERIES["known"], msgspec.structs.asdict(asked)):
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
            if created:
                self._copy("create", ((user.id, user.username, user.rating) for user in created))
        if plan.noted:
            kept = () if self._digest is None else (self._digest,)
            self._copy("note_kept" if kept else "note", ((*kept, *noted) for noted in plan.noted))
        return changed

    def _change(self, plan: Plan) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute(_QUERIES["hold"], {"ids": [user.id for user in (*plan.rated, *plan.renamed)]})
            cursor.execute(
                _QUERIES["rate"],
                {"ids": [user.id for user in plan.rated], "ratings": [user.rating for user in plan.rated]},
            )
            changed = cursor.rowcount
            if plan.parked:
                cursor.execute(_QUERIES["park"], {"ids": plan.parked})
            if plan.renamed:
                # One after the other: a name may be free only because a line before has given it up.
                cursor.executemany(_QUERIES["rename"], [msgspec.structs.asdict(user) for user in plan.renamed])
                changed += cursor.rowcount
        return changed

    def _copy(self, query: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with self._connection.cursor() as cursor, cursor.copy(_QUERIES[query]) as copy:
            for row in rows:
                copy.write_row(row)

    def _answer(self, query: str, **parameters: object) -> bool:
        ((answer,),) = self._connection.execute(_QUERIES[query], parameters).fetchall()
        return bool(answer)


def _key(digest: bytes) -> int:
    return int.from_bytes(digest[:8], signed=True)


@contextmanager
def open_intake(database_url: str, *, dry_run: bool = False, digest: bytes | None = None) -> Iterator[Intake]:
    """
    Open a session that takes users in. In a dry run it changes nothing, and needs no schema.

    With the `digest` of a list (of at least 8 bytes) it can be resumed by another session, see `Intake.begin`.

    Raises `Unavailable` if Postgres cannot be reached.
    """
    with translated():
        connection = Session(database_url, **_SETTINGS).connect()
    with closing(connection):
        intake = Intake(connection, dry_run=dry_run, digest=digest)
        try:
            with intake.transaction():
                intake.prepare()
            yield intake
        finally:
            intake.release()
