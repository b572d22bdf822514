"""
The settings of every session with Postgres, whatever its role, database, server, pooler or environment says.

They are set twice. As startup `options` they hold from the first statement on, and override ALTER ROLE, ALTER DATABASE
and postgresql.conf. The first statement sets them again: a variable like
PGDATESTYLE and a parameter of the URL come after the options, and a pooler may ignore them.

A session must belong to one server process for its whole life; otherwise settings, advisory locks and prepared
statements would be shared with other clients. A pooler that shares sessions is refused.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from service.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONNECT_SECONDS = 2
_SETTINGS = {
    "application_name": "ladder",
    # How values are written and read.
    "client_encoding": "UTF8",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    # What a statement means.
    "search_path": "public",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "row_security": "on",
    "default_table_access_method": "heap",
    # What a transaction promises. An acknowledged commit must survive a crash of Postgres, or the mirror would be
    # ahead of it.
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "synchronous_commit": "on",
    # How long a statement may take, and a session may be silent. A paused process must not hold a transaction, and
    # with it the tailer's horizon, for longer than 5 s.
    "statement_timeout": "5s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "5s",
    "idle_session_timeout": "0",
    # What an error or a notice causes: a clash of names must not end the session, nor a flood of notices delay it.
    "exit_on_error": "off",
    "client_min_messages": "warning",
    # Plans without which a fast statement would exceed its time limit.
    "plan_cache_mode": "auto",
    "jit": "off",
    "geqo": "off",
    **dict.fromkeys(
        (
            "enable_bitmapscan",
            "enable_hashagg",
            "enable_hashjoin",
            "enable_indexonlyscan",
            "enable_indexscan",
            "enable_mergejoin",
            "enable_nestloop",
            "enable_seqscan",
            "enable_sort",
            "enable_tidscan",
        ),
        "on",
    ),
}
_OF_SOME_RELEASES = {
    "transaction_timeout": "0",
    "restrict_nonsystem_relation_kind": "",
    "force_parallel_mode": "off",
    "debug_parallel_query": "off",
}
"""Set by the statement alone, where they exist: a startup option that the server does not know ends the session."""
# A host that vanished without closing its connections is noticed within about ten seconds.
_KEEPALIVES: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
}
_ANSWER_SECONDS = 5.0
_ROUNDS = 4
_SEARCH_PATH = re.compile(r"(?:-c\s*|--)search[-_]path=((?:\\.|\S)*)")
_NO_OPTIONS = re.compile(r"(unsupported|unrecognized) startup parameter|command-line options", re.IGNORECASE)
_NO_CONVERSION = re.compile(r"conversion between \S+ and \S+ is not supported", re.IGNORECASE)
POOLER = (
    "DATABASE_URL must lead to Postgres itself, or to a pooler in session mode that ignores the startup parameter"
    " options (PgBouncer: pool_mode = session, ignore_startup_parameters = options)"
)
_SETTLE = """
SELECT pg_backend_pid(), current_setting('session_replication_role'), current_schema(),
       count(set_config(name, value, false))
FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)
WHERE current_setting(name, true) IS NOT NULL
"""


class Session:
    """
    How sessions of one kind are opened on a database; `changed` are settings in which they differ from the others.

    `connect` opens one. A pool opens connections with `arguments` and passes each to `settle`.
    """

    def __init__(self, database_url: str, **changed: str) -> None:
        self.database_url = database_url
        parts = conninfo_to_dict(database_url)
        own = str(parts.get("options", ""))
        settings = {**_SETTINGS, **changed}
        if named := _SEARCH_PATH.findall(own):
            settings["search_path"] = named[-1].replace("\\", "")
        self._schema = settings["search_path"]
        options = " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items())
        self.arguments: dict[str, Any] = {
            "connect_timeout": CONNECT_SECONDS,
            "client_encoding": settings["client_encoding"],
            # The URL's own come first, so that ours are stronger.
            "options": f"{own} {options}".strip(),
            **_KEEPALIVES,
        }
        if "," in str(parts.get("hostaddr", parts.get("host", ""))) and "target_session_attrs" not in parts:
            # Any of several hosts may be the standby.
            self.arguments["target_session_attrs"] = "primary"
        wanted = {**settings, **_OF_SOME_RELEASES}
        # The name of the application is the URL's to choose.
        del wanted["application_name"]
        self._wanted = (list(wanted), list(wanted.values()))

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection:
        """
        Open a session that keeps its settings.

        Raises `Misconfigured`, and psycopg's errors if Postgres cannot be reached. One round trip, more behind a pooler.
        """
        connection = self._open()
        try:
            row = connection.execute(_SETTLE, self._wanted).fetchone()
            if self._settled(row) != connection.info.backend_pid:
                self.refuse_shared()
            connection.autocommit = autocommit
        except BaseException:
            connection.close()
            raise
        return connection

    async def settle(self, connection: psycopg.AsyncConnection[Any]) -> int:
        """Give a new connection its settings; returns the server process that it leads to. Raises `Misconfigured`."""
        cursor = await connection.execute(_SETTLE, self._wanted, prepare=False)
        return self._settled(await cursor.fetchone())

    def _settled(self, row: Sequence[Any] | None) -> int:
        pid, role, schema, _ = row or (0, "", None, 0)
        if role != "origin":
            message = (
                f"DATABASE_URL names a role or a database with session_replication_role = {role}, in which triggers do"
                " not run: reset it (ALTER ROLE ... RESET session_replication_role, likewise ALTER DATABASE)"
            )
            raise Misconfigured(message)
        if schema is None:
            message = (
                f"DATABASE_URL names a database without the schema {self._schema}, or a role that may not use it"
                " (GRANT USAGE ON SCHEMA)"
            )
            raise Misconfigured(message)
        return int(pid)

    def refuse_shared(self) -> None:
        """
        Raise `Misconfigured` if what DATABASE_URL leads to lets two connections share one server process.

        It shows when a connection meets another process than before, or the other connection's. Two connections send
        single statements by turns, then both hold a process in a transaction, then send single statements again: a
        pooler may hand out the process used last or the one idle longest, and the order of statements exposes either.
        """
        with ExitStack() as stack:
            one, two = (stack.enter_context(closing(self._open())) for _ in range(2))
            # A pooler in session mode that has no process left lets them wait: then nothing is shared.
            is_late = stack.enter_context(_hanging_up(one, two))
            seen: dict[psycopg.Connection, int] = {}
            try:
                for _ in range(_ROUNDS):
                    for holding in ((), (two, one)):
                        for connection in holding:
                            connection.execute("BEGIN")
                            _meet(connection, seen)
                        for connection in holding:
                            connection.execute("COMMIT")
                        for connection in (one, two, two, one, one):
                            _meet(connection, seen)
            except psycopg.Error as error:
                if "pooling mode" in str(error):
                    raise Misconfigured(POOLER) from error
                if not is_late.is_set():
                    raise

    def _open(self) -> psycopg.Connection:
        with connecting():
            return psycopg.connect(self.database_url, autocommit=True, **self.arguments)


@contextmanager
def connecting() -> Iterator[None]:
    """Turn errors that no later attempt can mend into `Misconfigured`; the server gives them no code of their own."""
    try:
        yield
    except psycopg.OperationalError as error:
        if _NO_OPTIONS.search(str(error)):
            raise Misconfigured(POOLER) from error
        if _NO_CONVERSION.search(str(error)):
            message = "DATABASE_URL names a database whose encoding Postgres does not convert to UTF8"
            raise Misconfigured(message) from error
        raise


def _meet(connection: psycopg.Connection, seen: dict[psycopg.Connection, int]) -> None:
    ((pid,),) = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchall()
    others = {other for met, other in seen.items() if met is not connection}
    if seen.setdefault(connection, pid) != pid or pid in others:
        raise Misconfigured(POOLER)


@contextmanager
def _hanging_up(*connections: psycopg.Connection) -> Iterator[threading.Event]:
    """Shut the connections down if the block takes longer than `_ANSWER_SECONDS`, and set the event then."""
    is_late = threading.Event()

    def hang_up() -> None:
        is_late.set()
        for connection in connections:
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(_ANSWER_SECONDS, hang_up)
    timer.start()
    try:
        yield is_late
    finally:
        timer.cancel()


def _escaped(value: str) -> str:
    return re.sub(r"([\\\s])", r"\\\1", value)
