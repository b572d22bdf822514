"""
Every error that a request can end in, as one tree.

    LadderError
    ├── Invalid                 the request is malformed; nothing was changed
    ├── NotFound                no such user
    ├── UsernameTaken           another user has this name, regardless of case
    ├── IdTaken                 another user has this id
    ├── RatingOutOfRange        the rating would leave 100..5000; nothing was changed
    ├── KeyReused               the Idempotency-Key belongs to another request
    ├── PreconditionFailed      If-Match names no version that is the current one
    ├── Unavailable             a store cannot be reached or is too slow; nothing was changed, retry later
    │   ├── Overloaded          a bounded queue is full, or every connection of a pool is in use
    │   ├── Locked              another session holds a lock on the user or the name
    │   ├── Misconfigured       a store answers that it is not what its variable says; only another value helps
    │   │   └── NoSuchDatabase  Redis has fewer databases than REDIS_URL says
    │   ├── Unsupported         the server refuses what the mirror needs: another kind of server, or missing rights
    │   └── NotReady            the mirror answers but must not be believed yet; Postgres is asked instead
    │       └── Behind          the mirror has not got a write that the answer must show
    ├── UnsupportedMediaType    the body is not JSON in UTF-8
    ├── TooSlow                 the body did not come in time
    ├── Unauthorized            a write without a key, or with one that is not known
    ├── OutcomeUnknown          the connection was lost while a write was being committed
    ├── SchemaMismatch          the database's schema is not the one of this release's migrations
    └── StoreBug                a store answered what it never should: a defect of ours
        └── NoSchema            the database lacks a table of ours

Drivers' errors are translated in one place each: `store/postgres.py` and `store/redis.py`. The HTTP
status of each is given in one table: `api/problems.py`.
"""

from __future__ import annotations

import re


class LadderError(Exception):
    """Base of the tree. The first line of a subclass's docstring is its default message."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().partition("\n")[0])


class Invalid(LadderError):
    """The request is malformed."""

    def __init__(self, *problems: tuple[str, str]) -> None:
        """`problems` are (field, message) pairs, at least one."""
        super().__init__("; ".join(f"{field}: {message}" for field, message in problems))
        self.problems = problems


class NotFound(LadderError):
    """There is no such user."""


class UsernameTaken(LadderError):
    """Another user already has this username (case does not distinguish names)."""


class IdTaken(LadderError):
    """Another user already has this id."""


class RatingOutOfRange(LadderError):
    """The rating would leave 100..5000."""


class KeyReused(LadderError):
    """This Idempotency-Key was used for another request."""


class PreconditionFailed(LadderError):
    """If-Match names no version that the user has now; a weak tag (W/"...") never matches."""


class Unavailable(LadderError):
    """A store cannot be reached or did not answer in time; nothing was changed."""


class Overloaded(Unavailable):
    """Too many requests are waiting; nothing was changed."""


class Locked(Unavailable):
    """Another session is writing this user or taking this name; nothing was changed."""


class Misconfigured(Unavailable):
    """A variable names a store that cannot be used; only another value helps."""


class NoSuchDatabase(Misconfigured):
    """REDIS_URL names a database that this Redis does not have."""


class Unsupported(Unavailable):
    """REDIS_URL names a server that refuses a command of the mirror, as a Sentinel or a proxy does."""


class NotReady(Unavailable):
    """The mirror is loading, damaged, or of another history of Postgres; ranks come from Postgres."""


class Behind(NotReady):
    """The mirror does not have that write yet, and Postgres cannot be asked."""


class OutcomeUnknown(LadderError):
    """The connection to the database was lost while the write was being committed."""


class UnsupportedMediaType(LadderError):
    """The body must be application/json in UTF-8."""


class TooSlow(LadderError):
    """The request's body did not arrive in time."""


class Unauthorized(LadderError):
    """A write needs a key: Authorization: Bearer <key>."""


class SchemaMismatch(LadderError):
    """A migration was changed after it had been applied."""


class StoreBug(LadderError):
    """A store gave an answer that it never should."""


class NoSchema(StoreBug):
    """The database that DATABASE_URL names lacks a table of Ladder's, which scripts/migrate.py makes."""


_LONGEST_REASON = 400
_PLACE = re.compile(r"\nLINE [0-9]+: .*\n *\^")
"""Where in a statement of ours Postgres found the mistake."""


def explain(error: BaseException) -> str:
    """
    Return what an error says and, on the same line, what the driver below it said: which privilege, password or address.

    For operators alone, in logs and on terminals: a client is told `str(error)`, which names no host and no role.
    """
    said = str(error)
    # The arguments of a refused command and its line in a script differ each time: with them each repetition of one
    # error would be logged as a new one.
    below = on_one_line(_PLACE.sub("", str(error.__cause__ or ""))).partition(" script: ")[0]
    below = below.partition(", with args beginning with")[0]
    # Of an OSError the sentence has the file and the words already.
    if isinstance(error.__cause__, OSError) and (error.__cause__.strerror or below) in said:
        return said
    return said if not below or below in said else f"{said.rstrip('.')}: {below}"[:_LONGEST_REASON]


def on_one_line(text: str) -> str:
    """Return a driver's lines as sentences after each other."""
    *lines, last = [" ".join(line.split()) for line in text.splitlines() if line.strip()] or [""]
    return " ".join([*(line if line[-1] in ".:;,?!" else f"{line}." for line in lines), last])


def as_sentence(text: str) -> str:
    """Return the text with a full stop at its end, unless a sentence ends there already."""
    text = text.rstrip()
    return text if text.endswith((".", "?", "!")) else f"{text}."
