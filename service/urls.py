"""
Whether the drivers understand the URL of a store, checked at start, when an operator can still correct it.

Each refusal names the slip. No value is repeated in a message: a URL may hold a password, and one that is written
wrong may hold a piece of it anywhere. Drivers are imported when they are needed, so that a wrong argument of a command
line is refused at once.
"""

from __future__ import annotations

import ipaddress
import re
from itertools import zip_longest
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, unquote_to_bytes, urlsplit

from service import tls_files

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_MAX_PORT = 65535
_WRITABLE = ("any", "read-write", "primary")
_LONGEST_SOCKET = 107
"""Bytes that the path of a Unix socket may have."""
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_POSTGRES_NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
_REDIS_SCHEMES = {"redis": "redis", "rediss": "rediss", "unix": "unix", "valkey": "redis", "valkeys": "rediss"}
# Not what changes the form of replies or repeats commands: both would break promises that the service makes.
_REDIS_PARAMETERS = frozenset(
    {
        *("db", "username", "password"),
        *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "health_check_interval", "max_connections"),
        *("client_name", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password"),
        *("ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers", "ssl_ca_data"),
        *("ssl_include_verify_flags", "ssl_exclude_verify_flags"),
    }
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,40}")
_SECRETS = frozenset({"password", "sslpassword", "ssl_password"})
_IPV6 = "must have an IPv6 address in brackets, as in [::1]"
_SECONDS = r"(?=[0-9.]*[1-9])[0-9]{1,6}(\.[0-9]{1,6})?"
_FLAG = "(?i:true|false|yes|no|[tfyn01])"
# redis-py takes any text for a flag, and any number of seconds, and then times out at once or never.
_REDIS_VALUES = {
    "socket_timeout": _SECONDS,
    "socket_connect_timeout": _SECONDS,
    "socket_keepalive": _FLAG,
    "ssl_check_hostname": _FLAG,
    "ssl_cert_reqs": "none|optional|required",
    "health_check_interval": "[0-9]{1,6}",
    "max_connections": "[1-9][0-9]{0,6}",
    # What CLIENT SETNAME takes.
    "client_name": "[!-~]+",
}


def postgres_url(text: str) -> str:
    """Return the URL, which may name several hosts, each with a port; raises ValueError for one that libpq would refuse."""
    authority, path, query = _take_apart(text, ("postgresql", "postgres"))
    from psycopg import Error, pq  # noqa: PLC0415  see above
    from psycopg.conninfo import conninfo_to_dict, make_conninfo  # noqa: PLC0415  see above

    defaults = pq.Conninfo.get_defaults()
    known = {option.keyword.decode() for option in defaults}
    # The one spelling of another library that libpq takes.
    _check_separators(authority, path, query, known={*known, "ssl"})
    hosts = authority.rpartition("@")[2]
    if any(re.match("[^[]*:[^[]*:", host) for host in hosts.split(",")):
        raise ValueError(_IPV6)
    _check_ports(re.findall(r":([^:,\]]*)(?=,|$)", hosts))
    _check_parameters(query, known={*known, "ssl"}, library="Postgres' own library")
    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(text).items()}
    except Error:
        message = _slip_that_libpq_refuses(hosts, query)
        raise ValueError(message) from None
    if "replication" in parts:
        message = "must have no parameter replication, because a replication connection takes no ordinary statements"
        raise ValueError(message)
    for name in _POSTGRES_NUMBERS:
        if not re.fullmatch(r"[0-9]{1,9}", parts.get(name, "0")):
            message = f"must have a number for {name}"
            raise ValueError(message)
    set_outside = {option.keyword.decode(): option.val.decode(errors="replace") for option in defaults if option.val}
    _check_hosts({name: set_outside[name] for name in ("host", "hostaddr", "port") if name in set_outside} | parts)
    if parts.get("sslmode", "prefer") not in _SSL_MODES:
        message = f"must have one of {', '.join(_SSL_MODES)} for sslmode"
        raise ValueError(message)
    tls_files.check_postgres(parts)
    # An address without a server: what libpq still complains of are the values of the other parameters.
    nowhere = make_conninfo(text, host="/nonexistent", hostaddr="", port="1")
    complaint = pq.PGconn.connect_start(nowhere.encode()).error_message.decode(errors="replace")
    if not complaint.startswith(("connection to", "could not connect")):
        message = _slip_in_values(complaint)
        raise ValueError(message)
    if "service" not in parts and ("/" in parts.get("dbname", "/") or not parts.get("dbname")):
        message = "must have the name of one database after the host, as in postgresql://user@host/ladder"
        raise ValueError(message)
    return text


def _slip_that_libpq_refuses(hosts: str, query: str) -> str:
    parts = query.split("&")
    if any(part.startswith("ssl=") for part in parts):
        return "must have sslmode instead of ssl"
    if any(part.count("=") > 1 for part in parts):
        return "must have & between its parameters, and = written as %3D in the value of one"
    if len(parts) > 1 and "" in parts:
        return "must have a parameter on both sides of each &"
    return _IPV6 if "[" in hosts or "]" in hosts else "must be a URL that Postgres' own library takes"


def _slip_in_values(complaint: str) -> str:
    if complaint.startswith("weak sslmode"):
        return (
            "must have verify-full for sslmode with sslrootcert=system, and at least require with sslnegotiation=direct"
        )
    if "service" in complaint:
        return "must have a service that is defined in the service file of Postgres' own library"
    found = re.match(r'(?:invalid )?"?(\w+)"? value', complaint)
    return f"must have a value for {found[1] if found else 'each parameter'} that Postgres' own library takes"


def _check_hosts(parts: Mapping[str, str]) -> None:
    ports = parts.get("port", "").split(",")
    _check_ports(ports)
    for host in parts.get("host", "").split(","):
        if not host.startswith(("/", "@")):
            _check_host_name(host)
    addresses = parts["hostaddr"].split(",") if "hostaddr" in parts else []
    if addresses and "host" in parts and len(addresses) != len(parts["host"].split(",")):
        message = "must have one hostaddr for each host"
        raise ValueError(message)
    if not all(address == "" or _is_address(address) for address in addresses):
        message = "must have numeric addresses for hostaddr"
        raise ValueError(message)
    hosts = addresses or parts.get("host", "").split(",")
    if len(ports) not in (1, len(hosts)):
        message = "must have one port for all its hosts, or a port for each"
        raise ValueError(message)
    for host, port in zip_longest(hosts, ports, fillvalue=ports[-1]):
        if host.startswith("/") and len(f"{host}/.s.PGSQL.{port or 5432}".encode()) > _LONGEST_SOCKET:
            message = f"must have a directory whose sockets have paths of at most {_LONGEST_SOCKET} bytes for host"
            raise ValueError(message)
    if parts.get("target_session_attrs", "any") not in _WRITABLE:
        message = f"must have one of {', '.join(_WRITABLE)} for target_session_attrs, because the service writes"
        raise ValueError(message)


def redis_url(text: str) -> str:
    """
    Return the URL as redis-py spells it, `redis://` for `valkey://` and `rediss://` for `valkeys://`.

    Raises ValueError for one that redis-py would refuse, or take for another than was meant.
    """
    authority, path, query = _take_apart(text, _REDIS_SCHEMES)
    scheme, _, rest = text.partition("://")
    text = f"{_REDIS_SCHEMES[scheme]}://{rest}"
    is_socket = scheme == "unix"
    if any(part.partition("=")[0] in ("ssl", "tls") for part in query.split("&")):
        message = "must start with rediss:// or valkeys:// for TLS, and have no parameter for it"
        raise ValueError(message)
    _check_separators(authority, path, query, known=_REDIS_PARAMETERS, is_socket=is_socket)
    host = authority.rpartition("@")[2]
    if "," in host:
        message = "must name one host: the master, or an address that always leads to it"
        raise ValueError(message)
    _check_redis_host(host)
    _check_parameters(query, known=_REDIS_PARAMETERS, library="Ladder")
    if "+" in query:
        # It would be read as a space.
        message = "must have + written as %2B in the value of a parameter"
        raise ValueError(message)
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    # `unix://run/redis.sock` would be /redis.sock on a host named run.
    if is_socket and (not path.strip("/") or authority.rpartition("@")[2]):
        message = "must have the path of a socket, as in unix:///run/redis.sock"
        raise ValueError(message)
    if is_socket and len(unquote_to_bytes(path)) > _LONGEST_SOCKET:
        message = f"must have the path of a socket of at most {_LONGEST_SOCKET} bytes"
        raise ValueError(message)
    _check_redis_parameters(authority, parameters)
    databases = [number for number in ("" if is_socket else path.removeprefix("/"), parameters.get("db", "")) if number]
    if not all(re.fullmatch(r"[0-9]{1,9}", number) for number in databases) or len(databases) > 1:
        message = "must have the number of one database, as in redis://host/0 or unix:///run/redis.sock?db=0"
        raise ValueError(message)
    if not text.startswith("rediss:") and any(name.startswith("ssl_") for name in parameters):
        message = "must start with rediss:// or valkeys:// to have parameters of TLS"
        raise ValueError(message)
    tls_files.check_redis(parameters)
    _ask_redis_py(text)
    return text


def _check_redis_parameters(authority: str, parameters: Mapping[str, str]) -> None:
    for name, value in parameters.items():
        if name in _REDIS_VALUES and not re.fullmatch(_REDIS_VALUES[name], value):
            message = f"must have a value for {name} that redis-py takes"
            raise ValueError(message)
    user, _, password = authority.rpartition("@")[0].partition(":")
    for name, before in (("username", user), ("password", password)):
        if before and name in parameters:
            message = f"must have the {name} before the host or as a parameter, not both"
            raise ValueError(message)


def _check_redis_host(host: str) -> None:
    found = re.fullmatch(r"(?:\[([^][]*)\]|([^][:]*))(?::([^][:]*))?", host)
    if not found or (found[1] is not None and not _is_address(unquote(found[1]))):
        raise ValueError(_IPV6)
    _check_ports([found[3] or ""])
    _check_host_name(unquote(found[2] or ""))


def _ask_redis_py(text: str) -> None:
    from redis.asyncio import Redis, SSLConnection  # noqa: PLC0415  see above
    from redis.exceptions import RedisError  # noqa: PLC0415  see above

    try:
        urlsplit(text)
    except ValueError:
        message = "must have unusual characters of a password percent-encoded, for example [ as %5B"
        raise ValueError(message) from None
    try:
        connection = Redis.from_url(text).connection_pool.make_connection()  # type: ignore[no-untyped-call]  # theirs
        if isinstance(connection, SSLConnection):
            connection.ssl_context.get()
    except (ValueError, TypeError, AttributeError, OSError, RedisError) as error:
        found = re.match(r"Invalid value for '(\w+)'", str(error))
        message = f"must have a value for {found[1] if found else 'each parameter'} that redis-py takes"
        raise ValueError(message) from None


def _take_apart(text: str, schemes: Collection[str]) -> tuple[str, str, str]:
    """Return authority, path and query, as written; raises ValueError for another scheme and for bad characters."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in schemes:
        *others, last = (f"{name}://" for name in schemes)
        right = f"{', '.join(others)} or {last}"
        slip = _slip_of_scheme(scheme, schemes) if separator else ""
        message = f"must be a URL that starts with {right}{slip}"
        raise ValueError(message)
    if any(not character.isprintable() or character == " " for character in text):
        message = "must be text in UTF-8 without blanks and control characters: a space is written as %20"
        raise ValueError(message)
    if "${" in rest:
        message = "must have ${ written as %24%7B, unless a variable should have been put in its place"
        raise ValueError(message)
    if re.search(r"%(?![0-9A-Fa-f]{2})", rest):
        message = "must have % written as %25 in a password or elsewhere"
        raise ValueError(message)
    try:
        unquote(rest, errors="strict")
    except UnicodeDecodeError:
        message = "must have what is percent-encoded in UTF-8, as in %C3%A9"
        raise ValueError(message) from None
    if "%00" in rest:
        message = "must have no %00, which no store takes"
        raise ValueError(message)
    found = re.fullmatch(r"([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?", rest)
    assert found  # noqa: S101  it matches every line
    if found[4]:
        message = "must have # written as %23 in a password or elsewhere"
        raise ValueError(message)
    return found[1], found[2], found[3] or ""


def _slip_of_scheme(scheme: str, schemes: Collection[str]) -> str:
    if scheme.startswith("jdbc:"):
        return ", without jdbc: before it"
    if "+" in scheme:
        return ", without a plus sign and what follows it"
    return ", in lower case" if scheme.lower() in schemes else ""


def _check_separators(
    authority: str, path: str, query: str, *, known: Collection[str], is_socket: bool = False
) -> None:
    """
    Refuse a password with one of the characters that end it: the rest of it would be taken for a host or a database.

    A driver that cannot resolve that host repeats its name in the log.
    """
    # The path of a socket may have an @, and so may the value of a parameter.
    in_path = "@" in path and not (is_socket and (not authority or "@" in authority))
    in_query = "@" in query and any(part.partition("=")[0] not in known for part in query.split("&"))
    if authority.count("@") > 1 or in_path or in_query:
        culprit = "@ written as %40" if "@" in authority else "/ written as %2F" if path else "? written as %3F"
        message = f"must have {culprit} in a user name or password"
        raise ValueError(message)


def _check_ports(ports: Collection[str]) -> None:
    # An empty port is the default one.
    if not all(port == "" or (re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= _MAX_PORT) for port in ports):
        message = f"must have numbers from 1 to {_MAX_PORT} for its ports"
        raise ValueError(message)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_host_name(host: str) -> None:
    """Refuse what cannot even be asked of a name server; Python raises another error for it than for an unknown name."""
    try:
        host.encode("idna")
    except UnicodeError:
        message = "must have host names whose parts between the dots have 1 to 63 characters"
        raise ValueError(message) from None


def _check_parameters(query: str, *, known: Collection[str], library: str) -> None:
    names = [part.partition("=")[0] for part in query.split("&") if part]
    for place, name in enumerate(names):
        if name not in known:
            if not _SECRETS.isdisjoint(names[:place]):
                # The name may be a piece of the password.
                message = "must have & written as %26 in a password"
                raise ValueError(message)
            # What does not look like a name may be a piece of a password.
            message = f"must have no parameter {name if _NAME.fullmatch(name) else 'of that name'}, which {library} does not take"
            raise ValueError(message)
        if names.count(name) > 1:
            message = f"must have the parameter {name} once"
            raise ValueError(message)
    if not all(part.partition("=")[2] for part in query.split("&") if part):
        message = "must have a value for each parameter, as in name=value"
        raise ValueError(message)
