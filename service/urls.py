"""
Whether the drivers will understand the URL of a store: asked at the start, when there is somebody to correct it.

The libraries are imported when they are asked, so that a wrong argument of a command line is refused at once. What
is wrong is not repeated in a message: a URL may hold a password, also one that cannot be taken apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_PORT = 65535
_WRITABLE = ("any", "read-write", "primary")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def postgres_url(text: str) -> str:
    """Return the URL, which may name several hosts, each with a port; raises ValueError for one that libpq would refuse."""
    if text.partition("://")[0] not in ("postgresql", "postgres") or "://" not in text:
        message = "must be a URL that starts with postgresql:// or postgres://"
        raise ValueError(message)
    from psycopg import Error  # noqa: PLC0415  see above
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415  see above

    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(text).items()}
    except Error:
        message = "must be a URL that Postgres' own library takes, with parameters that it knows"
        raise ValueError(message) from None
    if not parts.get("connect_timeout", "0").isdecimal():
        message = "must have a number for connect_timeout"
        raise ValueError(message)
    _check_hosts(parts)
    if parts.get("sslmode", "prefer") not in _SSL_MODES:
        message = f"must have one of {', '.join(_SSL_MODES)} for sslmode"
        raise ValueError(message)
    return text


def _check_hosts(parts: Mapping[str, str]) -> None:
    ports = parts.get("port", "").split(",")
    # An empty port is the default one.
    if not all(
        port == "" or (port.isdecimal() and port.isascii() and 1 <= int(port[:6]) <= _MAX_PORT) for port in ports
    ):
        message = f"must have numbers from 1 to {_MAX_PORT} for its ports"
        raise ValueError(message)
    hosts = parts.get("hostaddr", parts.get("host", "")).split(",")
    if len(ports) not in (1, len(hosts)):
        message = "must have one port for all its hosts, or a port for each"
        raise ValueError(message)
    if parts.get("target_session_attrs", "any") not in _WRITABLE:
        message = f"must have one of {', '.join(_WRITABLE)} for target_session_attrs, because the service writes"
        raise ValueError(message)


def redis_url(text: str) -> str:
    """Return the URL; raises ValueError for one that redis-py would refuse, or take for another than was meant."""
    _check_scheme(text, "redis", "rediss", "unix")
    import redis.asyncio  # noqa: PLC0415  see above

    parts = urlsplit(text)
    if not parts.path.strip("/") if parts.scheme == "unix" else not _is_database(parts.path):
        message = "must have the path of a socket, as in unix:///run/redis.sock, or the number of a database, as in redis://h/0"
        raise ValueError(message)
    try:
        redis.asyncio.Redis.from_url(text).connection_pool.make_connection()  # type: ignore[no-untyped-call]  # theirs
    except (ValueError, TypeError, AttributeError):
        message = "must be a URL that redis-py takes, with parameters that it knows"
        raise ValueError(message) from None
    return text


def _is_database(path: str) -> bool:
    number = path.removeprefix("/")
    return number == "" or (number.isdecimal() and number.isascii())


def _check_scheme(text: str, *schemes: str) -> None:
    try:
        parts = urlsplit(text)
        known = parts.scheme in schemes and parts.port != 0
    except ValueError:
        known = False
    if not known:
        message = f"must be a URL that starts with {' or '.join(f'{scheme}://' for scheme in schemes)}"
        raise ValueError(message)
