"""Opens and closes the connection pools to Postgres, and turns the driver's errors into ours."""

from __future__ import annotations

import asyncio
import math
import os
import socket
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, LiteralString

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from service import metrics
from service.errors import Locked, Misconfigured, NoSchema, OutcomeUnknown, Overloaded, StoreBug, Unavailable
from service.store.history import History
from service.store.session import CONNECT_SECONDS, POOLER, Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator


class Connection(psycopg.AsyncConnection[TupleRow]):
    """
    A connection, the server process that it leads to, and the history of Postgres.

    The history is known only of one that was lent for writing: it is asked each time, and cannot change while the
    connection lives and is not on a standby.
    """

    source: str | None = None
    process = 0
    opened_at = -math.inf
    refused_writes = False

    async def settle(self, session: Session) -> None:
        """Take the settings of a session; closes the connection if it cannot have them. Raises `Misconfigured`."""
        try:
            with answering(self, CONNECT_SECONDS):
                self.process = await session.settle(self)
        except BaseException:
            await self.close()
            raise
        self.opened_at = monotonic()

    @property
    def is_direct(self) -> bool:
        """Whether no pooler stands between: one gives out process ids of its own."""
        return self.process == self.pgconn.backend_pid

    @property
    def is_on_standby(self) -> bool:
        """Whether it leads to a standby. The server says so by itself, with its next answer."""
        return self.refused_writes or self.pgconn.parameter_status(b"in_hot_standby") == b"on"

    async def expect(self, process: int) -> None:
        """Close the connection if another process has answered than before: it is shared. Raises `Misconfigured`."""
        if process != self.process:
            await self.close()
            raise Misconfigured(POOLER)


class Pool(AsyncConnectionPool[Connection]):
    """A pool that knows how many of its connections are lent, and when the last was lent (time of the event loop)."""

    lent = 0
    lent_at = -math.inf


ACQUIRE_SECONDS = 1.0
FALLBACK_ACQUIRE_SECONDS = 0.1
FALLBACK_CONNECTIONS = 4
FALLBACK_STATEMENT = "500ms"
"""Counting a board is the one expensive question: better no answer than a Postgres that is busy counting."""
READ_CONNECTIONS = 4
ANSWER_SECONDS = 6.0
"""How long a statement may take, longer than the server's own limit: a server that hangs keeps none."""
STANDBY_SECONDS = 1.0
"""How long a connection that leads to a standby is kept: the next one may lead to the primary."""
UNIDENTIFIED = (
    "this Postgres does not say which history it is: it is a standby, its schema is not up to date, a pooler shares its"
    " sessions, or our role may not UPDATE the sequence users_version_seq"
)
_ON_STANDBY = ("25006", "55000")


class Postgres:
    """
    Three pools over one database, so that slow reads cannot starve writes of connections.

    `fallback` is the bulkhead for what the mirror should have answered: few connections, a short wait,
    short statements, so that a Redis that is away cannot take Postgres with it.

    A connection of `writes` knows which history it writes to, and `history` follows what they see.

    `open` does not wait for a connection: the service starts, and answers from the mirror, while
    Postgres is away. Whoever opens it closes it.
    """

    def __init__(
        self,
        database_url: str,
        *,
        history: History | None = None,
        write_connections: int = 4,
    ) -> None:
        self.database_url = database_url
        self._history = history or History()
        session = Session(database_url)
        self.writes = _pool(session, "writes", write_connections, check=self._check_writing)
        self.reads = _pool(session, "reads", READ_CONNECTIONS)
        self.fallback = _pool(
            Session(database_url, statement_timeout=FALLBACK_STATEMENT),
            "fallback",
            FALLBACK_CONNECTIONS,
            acquire_seconds=FALLBACK_ACQUIRE_SECONDS,
        )
        self._pools = (self.writes, self.reads, self.fallback)

    async def open(self) -> None:
        """Start connecting in the background."""
        for pool in self._pools:
            await pool.open(wait=False)

    def publish(self) -> None:
        """Count how the pools are used; asked now and then, because they count for themselves."""
        for pool in self._pools:
            metrics.pool_used(pool.name, pool.pop_stats())

    async def close(self) -> None:
        """Close every connection; waits for those in use, 2 s at most."""
        for pool in self._pools:
            await pool.close(timeout=2)

    async def _check_writing(self, connection: Connection) -> None:
        """
        As `_check`, and learn where the next write goes; name that history if it is a new one.

        Before the write: one that was committed already would have a version that the lost history may have given
        to another.
        """
        connection.source = None
        if self._history.is_shared and not connection.is_direct:
            # Without other traffic a pooler gives it one process all the time, and it looks like a session.
            return
        try:
            with answering(connection, ACQUIRE_SECONDS):
                connection.source = await identify(connection)
        except psycopg.Error as error:
            # A standby, or a schema that is not there yet: the connection is well, and whoever borrows it is told.
            if error.sqlstate is None or connection.closed:
                raise
            connection.refused_writes = error.sqlstate in _ON_STANDBY
        else:
            connection.refused_writes = False
            self._history.source = connection.source or self._history.source


async def identify(connection: Connection) -> str | None:
    """
    Return the history that a connection leads to, after naming it if nobody has; None without the right to.

    Raises psycopg's `ObjectNotInPrerequisiteState` on a standby, and `Misconfigured` if the connection is shared with
    others. One round trip, three when it is a new history.
    """
    for is_first in (True, False):
        ((source, is_named, process),) = await (await connection.execute(QUERIES["source"])).fetchall()
        await connection.expect(process)
        if is_named:
            return str(source)
        if is_first:
            await connection.execute(QUERIES["adopt"])
    return None


def _pool(
    session: Session,
    name: str,
    size: int,
    *,
    acquire_seconds: float = ACQUIRE_SECONDS,
    check: Callable[[Connection], Awaitable[None]] | None = None,
) -> Pool:
    async def configure(connection: Connection) -> None:
        await connection.settle(session)

    return Pool(
        session.database_url,
        connection_class=Connection,
        kwargs={"autocommit": True, "row_factory": tuple_row, "prepare_threshold": 2, **session.arguments},
        configure=configure,
        # After a restart of Postgres every pooled connection is dead; a write sent on one would end as
        # "outcome unknown" although it never left. One empty query a batch finds out before it counts.
        check=check or _check,
        min_size=1,
        max_size=size,
        max_waiting=1024,
        timeout=acquire_seconds,
        reconnect_timeout=5,
        name=name,
        open=False,
    )


async def _check(connection: Connection) -> None:
    with answering(connection, ACQUIRE_SECONDS):
        if connection.is_direct:
            await AsyncConnectionPool.check_connection(connection)
        else:
            ((process, connection.refused_writes),) = await (await connection.execute(_PROCESS)).fetchall()
            await connection.expect(process)


@contextmanager
def answering(connection: Connection, seconds: float) -> Iterator[None]:
    """
    Hang up the connection if the block takes longer; whoever waits in it gets psycopg's OperationalError.

    Not by cancelling: psycopg would ask the server to cancel the statement and wait for it to have done
    so, and a server that hangs does neither.
    """
    timer = asyncio.get_running_loop().call_later(seconds, _hang_up, connection)
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(connection: Connection) -> None:
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


@asynccontextmanager
async def borrowed(pool: Pool, operation: str = "other", *, writing: bool = False) -> AsyncIterator[Connection]:
    """
    Lend a connection; inside the block and while waiting for it, driver errors become ours.

    One lent for `writing` knows its `source`; `Unavailable` if it does not say which. `operation` is what the time
    that all of it takes is counted under.

    A connection that leads to a standby is replaced, after the block of a read and before the block of a write: its
    address may lead to the primary by now.
    """
    with metrics.postgres_call(operation):
        connection = await _lend(pool)
        if writing and _is_outlived(connection):
            await _take_back(pool, connection)
            connection = await _lend(pool)
        try:
            if writing and connection.source is None:
                raise Unavailable(UNIDENTIFIED)
            with translated(writing=writing), answering(connection, ANSWER_SECONDS):
                yield connection
        finally:
            await _take_back(pool, connection)


def _is_outlived(connection: Connection) -> bool:
    return not connection.closed and connection.is_on_standby and monotonic() - connection.opened_at > STANDBY_SECONDS


async def _take_back(pool: Pool, connection: Connection) -> None:
    """Give a connection back; one that has led to a standby too long is closed, and the pool's others are replaced."""
    pool.lent -= 1
    is_outlived = _is_outlived(connection)
    try:
        if is_outlived:
            await connection.close()
    finally:
        await pool.putconn(connection)
    if is_outlived:
        await pool.drain()


@contextmanager
def reading_result(connection: Connection, *, writing: bool = False) -> Iterator[None]:
    """
    Turn an error while a result is read into `StoreBug`, or into `OutcomeUnknown` if it is of a committed write.

    Inside a transaction the write is not committed, and the transaction is rolled back. The connection is closed: its
    session may lack the settings that the result is read with.
    """
    try:
        yield
    except Exception as error:
        is_committed = connection.info.transaction_status == TransactionStatus.IDLE
        connection.pgconn.finish()
        if writing and is_committed:
            message = "The write may have been carried out, but its result could not be read."
            raise OutcomeUnknown(message) from error
        message = "Postgres' answer could not be read"
        raise StoreBug(message) from error


async def _lend(pool: Pool) -> Connection:
    asked_at = asyncio.get_running_loop().time()
    with translated():
        try:
            connection = await pool.getconn()
        except PoolTimeout as error:
            # The pool's error is the same whether Postgres gives it no connection or all are lent.
            if pool.lent < pool.max_size and pool.lent_at < asked_at:
                raise Unavailable("Postgres cannot be reached") from error
            raise
    pool.lent += 1
    pool.lent_at = asyncio.get_running_loop().time()
    return connection


@contextmanager
def translated(*, writing: bool = False) -> Iterator[None]:
    """
    Turn psycopg's errors into `Unavailable`, `OutcomeUnknown` (only when `writing`) or `StoreBug`.

    A unique violation passes through: what it means depends on the statement.
    """
    try:
        yield
    except (PoolTimeout, TooManyRequests) as error:
        raise Overloaded("Every connection to Postgres is in use; nothing was changed.") from error
    except PoolClosed as error:
        raise Unavailable("The connections to Postgres are closed") from error
    except psycopg.errors.UniqueViolation:
        raise
    except psycopg.Error as error:
        raise _translate(error, writing=writing) from error


_PROCESS = "SELECT pg_backend_pid(), pg_is_in_recovery()"
# Connection lost while the server could still commit. A pooler that has lost the server sends a code of class 08.
_UNRESOLVED = ("57P0", "08", "40003")
# Resources, operator intervention (a statement timeout too), lock timeouts, deadlocks, a standby.
_TRANSIENT = ("53", "57", "40", "55P03", "25006", "25P03")


def _translate(error: psycopg.Error, *, writing: bool) -> Exception:
    state = error.sqlstate
    if isinstance(error, (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)):
        return Locked()
    # Without a state the connection broke; with 57P01..3 the server was shut down, perhaps after the commit. In both cases
    # it is unknown here whether the statement was committed. psycopg raises an InternalError of its own for more replies
    # than it asked for: a pooler appends the loss of its server to the server's answer.
    if state is None and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)):
        return OutcomeUnknown() if writing else Unavailable("Postgres cannot be reached")
    if state is not None and state.startswith(_UNRESOLVED):
        return OutcomeUnknown() if writing else Unavailable("Postgres is shutting down or starting up")
    if state is not None and state.startswith(_TRANSIENT):
        return Unavailable(f"Postgres could not answer in time ({state})")
    if isinstance(error, psycopg.errors.UndefinedTable):
        return NoSchema()
    return StoreBug(f"Postgres refused a statement ({state})")


def load_queries(path: Path) -> dict[str, LiteralString]:
    """
    Return the statements of a file by name: each follows a line `-- name: <name>` and its description.

    Raises `ValueError` for a name given twice.
    """
    queries: dict[str, LiteralString] = {}
    for block in path.read_text(encoding="utf-8").split("-- name: ")[1:]:
        name, _, body = block.partition("\n")
        if name in queries:
            message = f"{path.name}: {name} is defined twice"
            raise ValueError(message)
        queries[name] = body.strip().removesuffix(";")
    return queries


QUERIES = load_queries(Path(__file__).parent / "queries.sql")
