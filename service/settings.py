"""One frozen Settings, read from the environment once and passed in; nothing happens at import."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import msgspec

from service.cpus import usable_cpus
from service.urls import postgres_url, redis_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MAX_WORKERS = 64
LogLevel = Literal["debug", "info", "warning", "error"]
BoardTakeover = Literal["auto", "confirm"]
_LONGEST_PATH = 200
# Neither empty segments, which would make a host of the next one, nor dots, which clients resolve.
_PUBLIC_PATH = re.compile(r"((?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~@:+-]+)*)/?\Z")


class SettingsError(Exception):
    """A variable is missing or wrong; the message is one sentence that names it."""


def _default_workers() -> int:
    return min(usable_cpus(), _MAX_WORKERS)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be configured; the variable's name is the field's in upper case."""

    database_url: str
    """
    The system of record: `postgresql://user@host/database`, the primary, Postgres 14 or newer; also several hosts, or a
    pooler in session mode (see operations.md).
    """
    redis_url: str
    """The mirror: `redis://`, `rediss://`, `valkey://`, `valkeys://` or `unix://`, Redis 7.0 or Valkey 7.2 or newer, the master."""
    board_takeover: BoardTakeover = "auto"
    """Whether a board of an earlier history of the database, which nothing feeds any more, is replaced at once (`auto`) or only by `scripts/reconcile.py --incremental --force` (`confirm`, for copies of production)."""
    host: str = "127.0.0.1"
    """The address to listen on, or a name for one; `localhost` is both 127.0.0.1 and ::1. Anything but loopback needs `API_KEYS` or `ALLOW_ANONYMOUS_WRITES`."""
    port: int = 8080
    """The TCP port to listen on, 1..65535."""
    workers: int = msgspec.field(default_factory=_default_workers)
    """Processes that serve requests, 1..64; by default one per core that the machine and its cgroup's CPU quota allow."""
    log_level: LogLevel = "info"
    """The least severe level that is logged: debug, info, warning or error."""
    migrate_on_start: bool = True
    """Whether pending schema migrations are applied at start; `true` or `false`."""
    allow_anonymous_writes: bool = False
    """Whether everyone who reaches a non-loopback address may write; `true` or `false`."""
    api_keys: tuple[bytes, ...] = ()
    """The keys that allow writes: the SHA-256 of each in 64 hex digits, separated by commas; none by default."""
    cors_allow_origins: tuple[str, ...] = ()
    """Origins whose pages may call the API, such as `https://example.org`, separated by commas; none by default."""
    rate_limit_per_second: int = 100
    """Requests a second that one client may make in the long run, 0..1000000; 0 switches the limit off."""
    rate_limit_burst: int = 200
    """Requests that one client may make at once, 0..1000000; 0 switches the limit off."""
    trusted_proxies: tuple[Network, ...] = ()
    """Addresses or networks of the proxies whose X-Forwarded-For and X-Forwarded-Prefix are believed, separated by commas; none by default."""
    root_path: str | None = None
    """The path that clients see before the API's, for example `/ladder`, if a proxy adds one and sends no X-Forwarded-Prefix; none by default."""
    sentry_dsn: str | None = None
    """Where defects are told, an address that Sentry shows as DSN; needs the extra `sentry`. Nowhere by default."""
    drain_seconds: int = 1
    """Seconds from SIGTERM, when `/health/ready` turns 503, until it stops listening, 0..60; less than whoever stops it waits."""
    max_in_flight: int = 1000
    """Requests that one process takes on at a time, 1..100000: 100 are worked on, the others wait; beyond that 503."""
    max_connections: int = 16_384
    """Connections that one process holds at a time, idle ones too, 1..1000000; what comes on top waits."""
    idle_seconds: int = 75
    """Seconds after which a connection without a whole request's head is closed, 1..3600; longer than the proxy's."""
    max_streams: int = 2000
    """Streams of the leaderboard that one process keeps open at a time, 0..100000; beyond that 503."""
    stream_heartbeat_seconds: int = 15
    """Seconds between two signs of life on a stream, 1..300; less than a proxy waits for more of an answer."""
    cursor_secret: str | None = None
    """Key of the cursors' authentication codes, at least 16 characters; by default one kept in Postgres."""
    check_sample: float = 0.001
    """Share of the users read from the mirror that are compared with Postgres afterwards, 0..1; 0 for none."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read and check the variables; raises `SettingsError` for the first that is missing or wrong."""
        values: dict[str, Any] = {}
        for name in _READERS:
            if env.get(name.upper(), "") or name in ("database_url", "redis_url"):
                values[name] = read_variable(name, env)
        settings = cls(**values)
        if not (_is_loopback(settings.host) or settings.api_keys or settings.allow_anonymous_writes):
            message = (
                f"HOST is {settings.host}, which is not loopback: everyone who reaches it could write;"
                " set API_KEYS, or ALLOW_ANONYMOUS_WRITES=true if that is meant."
            )
            raise SettingsError(message)
        return settings


def confirms_takeover(env: Mapping[str, str]) -> bool:
    """Whether BOARD_TAKEOVER is `confirm`, for programs that need few settings; raises `SettingsError`."""
    return bool(env.get("BOARD_TAKEOVER")) and read_variable("board_takeover", env) == "confirm"


def read_variable(name: str, env: Mapping[str, str]) -> Any:
    """Read and check the variable of one field; raises `SettingsError` if it is missing, empty or wrong."""
    variable = name.upper()
    text = env.get(variable, "")
    if not text:
        message = f"{variable} is not set."
        if any(key.strip("\ufeff \t\r") == variable != key for key in env):
            message = f"{variable} is not set: its name has a byte order mark or a blank beside it."
        raise SettingsError(message)
    try:
        _check_edges(text)
        return _READERS[name](text)
    except ValueError as error:
        message = f"{variable} {error}."
        raise SettingsError(message) from None


def _check_edges(text: str) -> None:
    """Refuse what the way from an editor through an env file leaves around a value; a secret would silently be another."""
    if text.endswith("\r"):
        message = "must have no carriage return at its end: the file that it comes from has Windows' line ends"
    elif text.startswith("\ufeff"):
        message = "must have no byte order mark before it"
    elif text != text.strip():
        message = "must have no blanks around it"
    elif len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
        message = "must have no quotes around it: docker --env-file takes them for a part of the value"
    else:
        return
    raise ValueError(message)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _dsn(text: str) -> str:
    # It holds a key, so it is never repeated in the message.
    if not re.fullmatch(r"https?://[^\s/@]+@[^\s/@]+/.+", text):
        message = "must be a URL that Sentry shows as DSN, as in https://key@host/number"
        raise ValueError(message)
    return text


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) <= 9 and low <= int(text) <= high):
            message = f"must be a whole number from {low} to {high}, not {text!r}"
            raise ValueError(message)
        return int(text)

    return read


def _share(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text, re.ASCII) or float(text) > 1:
        message = f"must be a number from 0 to 1, not {text!r}"
        raise ValueError(message)
    return float(text)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        message = f"must be true or false, not {text!r}"
        raise ValueError(message)
    return text == "true"


def _takeover(text: str) -> str:
    if text not in get_args(BoardTakeover):
        message = f"must be one of {', '.join(get_args(BoardTakeover))}, not {text!r}"
        raise ValueError(message)
    return text


def _level(text: str) -> str:
    if text not in get_args(LogLevel):
        message = f"must be one of {', '.join(get_args(LogLevel))}, not {text!r}"
        raise ValueError(message)
    return text


def _host(text: str) -> str:
    if any(not character.isprintable() or character in " /@[]%" for character in text):
        message = f"must be an address without brackets and zone, or a host name, not {text!r}"
        raise ValueError(message)
    if re.fullmatch(r"[^:]*:[0-9]{1,5}", text):
        message = f"must be an address or a host name without a port, which is for PORT, not {text!r}"
        raise ValueError(message)
    return text.lower() if text.lower() == "localhost" else text


def _secret(text: str) -> str:
    if len(text) < 16:
        message = "must have at least 16 characters"
        raise ValueError(message)
    return text


def _list(read: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    def read_all(text: str) -> tuple[T, ...]:
        return tuple(read(part.strip()) for part in text.split(","))

    return read_all


def _digest(text: str) -> bytes:
    # Not repeated in the message: whoever mistakes what this is puts the key itself here.
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        message = "must be SHA-256 digests of 64 hexadecimal digits, separated by commas"
        raise ValueError(message)
    return bytes.fromhex(text)


def _origin(text: str) -> str:
    found = re.fullmatch(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", text)
    if not found or int(found[2] or 80) not in range(1, 65536):
        message = f"must be origins such as https://example.org, in lower case, separated by commas, not {text!r}"
        raise ValueError(message)
    return text


def _network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
        # A client is known by its IPv4 address however the socket spells it, and so is a proxy.
        mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
        return ipaddress.ip_network((mapped, network.prefixlen - 96)) if mapped else network
    except ValueError:
        message = f"must be addresses or networks such as 10.0.0.0/8, separated by commas, not {text!r}"
        raise ValueError(message) from None


def public_path(text: str) -> str:
    """Return a path as it stands before ours, as in `/ladder`; "" for `/`. Raises ValueError for any other text."""
    found = _PUBLIC_PATH.match(text) if 0 < len(text) <= _LONGEST_PATH else None
    if not found:
        message = f"must be a path like /ladder, not {text[:_LONGEST_PATH]!r}"
        raise ValueError(message)
    return found[1]


_READERS: dict[str, Callable[[str], object]] = {
    "database_url": postgres_url,
    "redis_url": redis_url,
    "host": _host,
    "port": _whole(1, 65535),
    "workers": _whole(1, _MAX_WORKERS),
    "log_level": _level,
    "board_takeover": _takeover,
    "migrate_on_start": _flag,
    "allow_anonymous_writes": _flag,
    "cursor_secret": _secret,
    "api_keys": _list(_digest),
    "cors_allow_origins": _list(_origin),
    "rate_limit_per_second": _whole(0, 1_000_000),
    "rate_limit_burst": _whole(0, 1_000_000),
    "trusted_proxies": _list(_network),
    "root_path": public_path,
    "sentry_dsn": _dsn,
    "drain_seconds": _whole(0, 60),
    "max_in_flight": _whole(1, 100_000),
    "check_sample": _share,
    "max_connections": _whole(1, 1_000_000),
    "idle_seconds": _whole(1, 3600),
    "max_streams": _whole(0, 100_000),
    "stream_heartbeat_seconds": _whole(1, 300),
}
