"""Builds and closes the client to Redis or Valkey, and turns its errors into ours."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.errors import NoSuchDatabase, NotReady, Overloaded, StoreBug, Unavailable, Unsupported
from service.store.connection import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

Client = redis.asyncio.Redis

CONNECT_SECONDS = 0.2
ANSWER_SECONDS = 0.25
"""How long a request waits for the mirror before it is answered by Postgres."""
FEED_ANSWER_SECONDS = 2.0
"""The same for the tailer, whose pipelines are long and which no request waits for."""

LIMIT_SECONDS = 0.1
"""The same for the rate limit, which every request waits for and each process can do without."""


def connect_feed(url: str) -> Client:
    """Return the tailer's client, as `connect` does."""
    return connect(url, answer_seconds=FEED_ANSWER_SECONDS, connections=4)


def connect(url: str, *, answer_seconds: float = ANSWER_SECONDS, connections: int = 64) -> Client:
    """
    Return a client that opens connections when they are first needed.

    It never retries: after a lost answer a write may or may not have happened, and only the caller
    knows whether to do it again (left alone, redis-py would, ten times). Close it with `aclose`.
    """
    client = redis.asyncio.Redis.from_url(
        url,
        protocol=2,
        legacy_responses=False,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=answer_seconds,
        health_check_interval=0,
        max_connections=connections,
        client_name="ladder",
    )
    prepare(client, url)
    return client


async def ping(url: str) -> None:
    """Ask once whether Redis answers; raises `Unavailable`, which is `Misconfigured` when waiting would not help."""
    with translated():
        async with connect_feed(url) as client:
            await client.ping()


@contextmanager
def translated() -> Iterator[None]:
    """Turn redis-py's errors, and those of a broken socket below it, into ours, as `translate` says."""
    try:
        yield
    except (exceptions.RedisError, OSError) as error:
        raise translate(error) from error
    except ValueError as error:
        # redis-py takes some replies apart as they come (MOVED, ASK), and a malformed one breaks that.
        raise Unsupported(_NO_REDIS) from error
    except RuntimeError as error:
        # uvloop's transport raises a bare RuntimeError when redis-py writes to a reset connection.
        if "closed" in str(error) or "TCPTransport" in str(error) or "UnixTransport" in str(error):
            message = "the connection to Redis is closed"
            raise Unavailable(message) from error
        raise


# What a healthy server says while it is full, demoted, moving or misconfigured: not our defect. redis-py
# has classes for some of these, without the word that they began with, and leaves the others as they came.
_TRANSIENT_CLASSES = (
    exceptions.ConnectionError,  # refused, reset, LOADING, NOAUTH, too many clients
    exceptions.OutOfMemoryError,
    exceptions.MasterDownError,
    OSError,
)
_NO_REDIS = "REDIS_URL names a server that does not speak the Redis protocol"
_NO_SUCH_DATABASE = ("DB index is out of range", "invalid DB index", "SELECT is not allowed in cluster mode")
_TRANSIENT_WORDS = ("BUSY ", "MISCONF ", "NOREPLICAS ", "OOM ", "LOADING ", "UNBLOCKED ")
_CLUSTER_CLASSES = (
    exceptions.AskError,  # MovedError, too
    exceptions.ClusterCrossSlotError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
)
# Errors of a script that the server causes, not the script: it lacks a command, forbids one, or is a cluster node.
_SERVER_WORDS = (
    "unknown redis command",
    "unknown command",  # Valkey's words
    "not allowed from",
    "can't run this command",
    "can't access",
    "non local key",
    "do not hash to the same slot",
)


def translate(error: BaseException) -> Exception:
    """
    Return our error for one of the driver's.

    `StoreBug` is only for what our own scripts or arguments cause. Any other refusal is `Unsupported`: a Sentinel, a
    cluster node, a proxy that forbids commands and a server of another protocol each word theirs differently.
    """
    # redis-py prefixes an error inside a transaction with the command's place, and puts the server's words in a tuple.
    text = str(error).rpartition("caused error: ('")[2]
    if isinstance(error, exceptions.TimeoutError):
        return Unavailable("Redis did not answer in time")
    if isinstance(error, exceptions.MaxConnectionsError):
        return Overloaded("Every connection to Redis is in use; nothing was changed.")
    # Over a Unix socket redis-py wraps this answer in a ConnectionError.
    if text.startswith(_NO_SUCH_DATABASE):
        return NoSuchDatabase("REDIS_URL names a database that this Redis does not have")
    if isinstance(error, exceptions.ReadOnlyError) or text.startswith("READONLY "):
        # Not a failure for the circuit breaker: the answer is immediate, and an open breaker would delay the recovery.
        return NotReady("this Redis is a replica now, and takes no writes")
    if (is_said := text.startswith(_TRANSIENT_WORDS)) or isinstance(error, _TRANSIENT_CLASSES):
        name = text.partition(" ")[0] if is_said else type(error).__name__
        return Unavailable(f"Redis cannot be used now ({name})")
    return _refusal(error, text)


def _refusal(error: BaseException, text: str) -> NotReady | StoreBug | Unsupported:
    if text.startswith("WRONGTYPE"):
        return NotReady("a key of ours holds something else")
    if _is_defect(error, text):
        return StoreBug(f"Redis refused a command: {text}")
    if isinstance(error, _CLUSTER_CLASSES):
        return Unsupported("REDIS_URL names a node of a Redis Cluster, which cannot be the mirror")
    if isinstance(error, exceptions.InvalidResponse):
        return Unsupported(_NO_REDIS)
    return Unsupported()


def _is_defect(error: BaseException, text: str) -> bool:
    if isinstance(error, exceptions.DataError) or text.startswith("BADARG "):
        return True
    return "user_script:" in text and not any(word in text.lower() for word in _SERVER_WORDS)
