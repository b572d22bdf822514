"""The error tree, and what the drivers' errors become in it."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg import errors as postgres_errors
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, MaxConnectionsError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service import errors
from service.embedded import EmbeddedError
from service.errors import (
    Behind,
    Invalid,
    LadderError,
    Locked,
    Misconfigured,
    NoSchema,
    NoSuchDatabase,
    NotFound,
    NotReady,
    OutcomeUnknown,
    Overloaded,
    StoreBug,
    Unavailable,
    Unsupported,
    as_sentence,
    explain,
    on_one_line,
)
from service.store import postgres, redis

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LadderError)]


# The tree


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not Invalid])
def test_an_error_without_words_says_its_docstring(kind: type[LadderError]) -> None:
    """The first line, which is a sentence; words of one's own take its place."""
    message = str(kind())

    assert message == (kind.__doc__ or "").strip().partition("\n")[0]
    assert message.endswith(".")
    assert "mine" == str(kind("mine"))


def test_invalid_lists_every_problem() -> None:
    """Field by field, for a person and for a program."""
    error = Invalid(("rating", "must be a whole number"), ("cursor", "is not ours"))

    assert "rating: must be a whole number; cursor: is not ours" == str(error)
    assert (("rating", "must be a whole number"), ("cursor", "is not ours")) == error.problems


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Every class stands in the picture, one step further in than the class it derives from."""
    drawn = {
        line.replace("│", " ").split()[-1 if line.endswith("LadderError") else 1]: len(line) - len(line.lstrip(" │├└─"))
        for line in (errors.__doc__ or "").splitlines()
        if "──" in line or line.strip() == "LadderError"
    }

    assert {kind.__name__ for kind in KINDS} == set(drawn)
    for kind in KINDS:
        if kind is not LadderError:
            assert drawn[kind.__name__] == drawn[kind.__bases__[0].__name__] + 4


def test_what_changed_nothing_may_be_retried() -> None:
    """`Unavailable` says so, so nothing whose outcome is unknown may derive from it."""
    assert {Overloaded, Locked, Misconfigured, NoSuchDatabase, Unsupported, NotReady, Behind} == {
        kind for kind in KINDS if issubclass(kind, Unavailable)
    } - {Unavailable}


# psycopg


def after_translation(error: Exception, *, writing: bool) -> Exception:
    """What a caller of the store gets for an error of the driver."""
    with pytest.raises(Exception) as caught, postgres.translated(writing=writing):  # noqa: PT011  whatever it is
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "reading", "writing"),
    [
        # The connection broke: a write may have been committed.
        (psycopg.OperationalError("server closed the connection unexpectedly"), Unavailable, OutcomeUnknown),
        (psycopg.InterfaceError("the connection is closed"), Unavailable, OutcomeUnknown),
        (postgres_errors.ConnectionTimeout("timeout expired"), Unavailable, OutcomeUnknown),
        # The server was told to go, perhaps after the commit.
        (postgres_errors.AdminShutdown(), Unavailable, OutcomeUnknown),
        (postgres_errors.CrashShutdown(), Unavailable, OutcomeUnknown),
        (postgres_errors.CannotConnectNow(), Unavailable, OutcomeUnknown),
        (postgres_errors.IdleSessionTimeout(), Unavailable, OutcomeUnknown),
        # A pooler has lost the server, and says so in place of the server's answer, or after it.
        (postgres_errors.ProtocolViolation("server conn crashed?"), Unavailable, OutcomeUnknown),
        (postgres_errors.ConnectionFailure(), Unavailable, OutcomeUnknown),
        (psycopg.InternalError("received 2 results from command 'COMMIT'"), Unavailable, OutcomeUnknown),
        # The server refused, and said so: nothing was changed.
        (postgres_errors.QueryCanceled(), Unavailable, Unavailable),
        (postgres_errors.LockNotAvailable(), Locked, Locked),
        (postgres_errors.DeadlockDetected(), Locked, Locked),
        (postgres_errors.SerializationFailure(), Unavailable, Unavailable),
        (postgres_errors.TooManyConnections(), Unavailable, Unavailable),
        (postgres_errors.OutOfMemory(), Unavailable, Unavailable),
        (postgres_errors.DiskFull(), Unavailable, Unavailable),
        (postgres_errors.ReadOnlySqlTransaction(), Unavailable, Unavailable),
        # It never came to a statement.
        (PoolTimeout("no connection"), Overloaded, Overloaded),
        (PoolClosed("closed"), Unavailable, Unavailable),
        (TooManyRequests("queue is full"), Overloaded, Overloaded),
        # Ours to mend.
        (postgres_errors.SyntaxError(), StoreBug, StoreBug),
        (postgres_errors.UndefinedTable(), NoSchema, NoSchema),
        (postgres_errors.InsufficientPrivilege(), StoreBug, StoreBug),
        (postgres_errors.CheckViolation(), StoreBug, StoreBug),
        (postgres_errors.NumericValueOutOfRange(), StoreBug, StoreBug),
        (psycopg.ProgrammingError("the query has 1 placeholder but 2 parameters were passed"), StoreBug, StoreBug),
        # The statement knows what it means.
        (postgres_errors.UniqueViolation(), postgres_errors.UniqueViolation, postgres_errors.UniqueViolation),
    ],
    ids=lambda case: case.__name__ if isinstance(case, type) else type(case).__name__,
)
def test_an_error_of_postgres_becomes_ours(
    error: Exception, reading: type[Exception], writing: type[Exception]
) -> None:
    """Whether the outcome is known depends on whether something was being written."""
    assert reading is type(after_translation(error, writing=False))
    assert writing is type(after_translation(error, writing=True))


@pytest.mark.parametrize("error", [NotFound(), KeyError("x"), asyncio.CancelledError()])
def test_what_is_not_the_drivers_passes_postgres(error: BaseException) -> None:
    """Our own errors, defects and cancellation are left alone."""
    with pytest.raises(type(error)) as caught, postgres.translated(writing=True):
        raise error

    assert error is caught.value


def test_the_cause_is_kept_and_not_told() -> None:
    """The log shows the driver's error; the message, which may reach a client, does not."""
    error = psycopg.OperationalError('connection to server at "10.0.0.7" failed: password authentication failed')
    ours = after_translation(error, writing=False)

    assert error is ours.__cause__
    assert "10.0.0.7" not in str(ours)
    assert "10.0.0.7" not in str(after_translation(error, writing=True))


def test_an_operator_is_told_the_cause_on_one_line() -> None:
    """Which password, database or privilege: without it every refusal of Postgres reads the same."""
    refused = psycopg.OperationalError('connection to server at "10.0.0.7" failed:\n\tpassword authentication failed')
    lacking = postgres_errors.InsufficientPrivilege("permission denied for table users")

    assert 'Postgres cannot be reached: connection to server at "10.0.0.7" failed: password authentication failed' == (
        explain(after_translation(refused, writing=False))
    )
    assert explain(after_translation(lacking, writing=True)).endswith("(42501): permission denied for table users")
    assert "There is no such user." == explain(NotFound())


def test_a_database_without_a_table_is_told_without_the_statement() -> None:
    """The next step is named, and no line of ours with a caret under it."""
    lacking = postgres_errors.UndefinedTable('relation "users" does not exist\nLINE 2: SELECT 1 FROM users\n         ^')

    assert explain(after_translation(lacking, writing=False)) == (
        "The database that DATABASE_URL names lacks a table of Ladder's, which scripts/migrate.py makes:"
        ' relation "users" does not exist'
    )


def test_what_a_sentence_says_of_a_file_is_not_said_twice() -> None:
    """The system's own words have the name of the file and a number besides."""
    sentence = "The data directory x cannot be used (x/file: No such file or directory)."
    error = EmbeddedError(sentence)
    error.__cause__ = FileNotFoundError(2, "No such file or directory", "x/file")

    assert sentence == explain(error)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("refused\n\tIs it running?\n", "refused. Is it running?"),
        (
            "All failures were:\n- host a: refused\n- host b: refused",
            "All failures were: - host a: refused. - host b: refused",
        ),
        ("done.\n\n  again", "done. again"),
        ("one", "one"),
        ("", ""),
    ],
)
def test_the_lines_of_a_driver_are_sentences(lines: str, told: str) -> None:
    """One after the other, with a full stop where it has none."""
    assert told == on_one_line(lines)


@pytest.mark.parametrize(
    ("text", "told"), [("away", "away."), ("away.", "away."), ("is it away?", "is it away?"), ("away\n", "away.")]
)
def test_a_sentence_ends_once(text: str, told: str) -> None:
    """Whatever the driver's words end with."""
    assert told == as_sentence(text)


# redis-py


@pytest.mark.parametrize(
    "answer",
    [
        "LOADING Redis is loading the dataset in memory",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "OOM command not allowed when used memory > 'maxmemory'. script: 5f0e8, on @user_script:46.",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "NOREPLICAS Not enough good replicas to write.",
        "Command # 1 (HGETALL {ladder}:state) of pipeline caused error: ('BUSY Redis is busy running a script.',)",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "ERR max number of clients reached",
    ],
)
def test_a_redis_that_cannot_serve_now_is_unavailable(answer: str) -> None:
    """As the driver reads the server's words; the write or look-up goes on without the mirror."""
    assert Unavailable is type(redis.translate(BaseParser.parse_error(answer)))


@pytest.mark.parametrize("script", ["", " script: 5f0e8, on @user_script:46."])
def test_a_replica_is_not_ready(script: str) -> None:
    """It answers, so the circuit breaker stays closed, and the next master is met at once."""
    answer = f"READONLY You can't write against a read only replica.{script}"

    assert NotReady is type(redis.translate(BaseParser.parse_error(answer)))


@pytest.mark.parametrize(
    "answer",
    [
        "MOVED 6644 127.0.0.1:7001",
        "ASK 6644 127.0.0.1:7001",
        "CROSSSLOT Keys in request don't hash to the same slot",
        "CLUSTERDOWN The cluster is down",
        "CLUSTERDOWN Hash slot not served",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "ERR Script attempted to access a non local key in a cluster node script: 5f0e8, on @user_script:3.",
        "ERR unknown command 'EVALSHA', with args beginning with: '5f0e8' '3' '{ladder}:board'",
        "ERR Unknown Redis command called from script script: 5f0e8, on @user_script:3.",
        "ERR This Redis command is not allowed from script script: 5f0e8, on @user_script:3.",
        "ERR The user executing the script can't run this command or subcommand script: 5f0e8, on @user_script:3.",
        "NOSCRIPT No matching script. Please use EVAL.",
        "NOPERM User ladder has no permissions to run the 'evalsha' command",
        "unsupported command 'evalsha'",
        "DENIED Redis is running in protected mode",
        "ERR whatever an unknown server says",
    ],
)
def test_a_server_that_refuses_our_commands_is_the_wrong_one(answer: str) -> None:
    """A Sentinel, a cluster node, a proxy, a user without rights: Postgres answers, as when Redis is away."""
    assert Unsupported is type(redis.translate(BaseParser.parse_error(answer)))


def test_a_repeated_refusal_has_the_same_words() -> None:
    """The arguments of a call differ each time, and each new reason is a line in the log."""
    words = []
    for argument in ("a", "b"):
        refused = BaseParser.parse_error(f"ERR unknown command 'EVALSHA', with args beginning with: '{argument}'")
        error = redis.translate(refused)
        error.__cause__ = refused
        words.append(explain(error))

    assert "unknown command 'EVALSHA'" in words[0]
    assert words[0] == words[1]


@pytest.mark.parametrize(
    "answer",
    [
        "BADARG put takes 1..200 rows of five",
        "ERR value is not an integer or out of range script: 5f0e8, on @user_script:23.",
        "ERR user_script:27: attempt to perform arithmetic on a nil value",
    ],
)
def test_an_answer_that_should_never_be_is_a_defect(answer: str) -> None:
    """It is not retried and not worked around, but logged."""
    assert StoreBug is type(redis.translate(BaseParser.parse_error(answer)))


@pytest.mark.parametrize(
    "answer", ["ERR DB index is out of range", "ERR invalid DB index", "ERR SELECT is not allowed in cluster mode"]
)
def test_a_database_that_redis_does_not_have_is_a_wrong_variable(answer: str) -> None:
    """Waiting for it would not help."""
    for said in (BaseParser.parse_error(answer), RedisConnectionError(answer.removeprefix("ERR "))):
        error = redis.translate(said)
        assert NoSuchDatabase is type(error)
        assert str(error).startswith("REDIS_URL ")


def test_a_key_of_another_type_is_a_board_that_is_not_ready() -> None:
    """Somebody wrote where the board is: Postgres answers until it has been begun anew."""
    answer = "WRONGTYPE Operation against a key holding the wrong kind of value"

    assert NotReady is type(redis.translate(BaseParser.parse_error(answer)))


@pytest.mark.parametrize(
    "error",
    [
        RedisTimeoutError("Timeout reading from cache:6379"),
        RedisConnectionError("Error 111 connecting to cache:6379. Connection refused."),
        ConnectionResetError(104, "Connection reset by peer"),
        BrokenPipeError(32, "Broken pipe"),
        TimeoutError(),
        OSError("whatever the socket says"),
        RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed"),
        RuntimeError("unable to perform operation on <UnixTransport closed=True>; the handler is closed"),
    ],
    ids=repr,
)
def test_a_broken_connection_to_redis_is_unavailable(error: Exception) -> None:
    """Whichever layer notices it; the address stays in the log."""
    with pytest.raises(Unavailable) as caught, redis.translated():
        raise error

    assert error is caught.value.__cause__
    assert "cache" not in str(caught.value)


@pytest.mark.parametrize("error", [NotFound(), KeyError("x"), RuntimeError("of ours"), asyncio.CancelledError()])
def test_what_is_not_the_drivers_passes_redis(error: BaseException) -> None:
    """Our own errors, defects and cancellation are left alone."""
    with pytest.raises(type(error)) as caught, redis.translated():
        raise error

    assert error is caught.value


def test_a_lack_of_our_own_connections_is_no_failure_of_redis() -> None:
    """The breaker must not open over it."""
    with pytest.raises(Overloaded), redis.translated():
        raise MaxConnectionsError("Too many connections")


def test_a_server_of_another_protocol_is_the_wrong_one() -> None:
    """An HTTP server, for example."""
    with pytest.raises(Unsupported, match="protocol"), redis.translated():
        raise InvalidResponse('Protocol error, got "H" as reply type byte')


def test_a_refused_command_is_translated_where_it_is_raised() -> None:
    """The context does what the function says."""
    with pytest.raises(StoreBug, match="BADARG rank takes"), redis.translated():
        raise ResponseError("BADARG rank takes 1..1000 ids")
