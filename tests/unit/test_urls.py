"""What is said about a slip in the URL of a store: it is named, and no piece of the URL is repeated."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from service.settings import SettingsError, read_variable
from service.urls import postgres_url, redis_url

POSTGRES_SLIPS = {
    "jdbc:postgresql://h/x": "without jdbc:",
    "postgres+psycopg://u@h/x": "without a plus sign",
    "postgresql+asyncpg://u@h/x": "without a plus sign",
    "PostgreSQL://h/x": "in lower case",
    "psql://h/x": "starts with postgresql:// or postgres://",
    "postgresql://u:ge#heim@h/x": "# written as %23",
    "postgresql://h/x#heim": "# written as %23",
    "postgresql://u:ge/heim@h/x": "/ written as %2F",
    "postgresql://u:12/heim@h/x": "/ written as %2F",
    "postgresql://u:ge?heim@h/x": "? written as %3F",
    "postgresql://u:ge@heim@h/x": "@ written as %40",
    "postgresql://u:ge@/heim@h/x": "@ written as %40",
    "postgresql://u:ge%heim@h/x": "% written as %25",
    "postgresql://u:${geheim}@h/x": "${ written as %24%7B",
    "postgresql://u@h/x?ssl=false": "sslmode instead of ssl",
    "postgresql://u:ge%00heim@h/x": "%00",
    "postgresql://u:ge heim@h/x": "%20",
    "postgresql://u:ge\udcfcheim@h/x": "UTF-8",
    "postgresql://u:ge\theim@h/x": "control characters",
    "postgresql://u:geheim": "ports",
    "postgresql://u@h/x?schema=public": "no parameter schema,",
    "postgresql://u@h/x?pgbouncer=true": "no parameter pgbouncer,",
    "postgresql://u@h/x?sslMode=require": "no parameter sslMode,",
    "postgresql://u@h/x?ge heim=1": "%20",
    "postgresql://u@h/x?ge(heim=1": "no parameter of that name,",
    "postgresql://u@h/x?connect_timeout": "a value for each parameter",
    "postgresql://u@h/x?sslmode=require&sslmode=disable": "sslmode once",
    "postgresql://u@h/x?sslmode=requierd": "verify-full for sslmode",
    "postgresql://u@h/x?channel_binding=geheim": "a value for channel_binding",
    "postgresql://u@h/x?ssl_min_protocol_version=geheim": "a value for ssl_min_protocol_version",
    "postgresql://u@h/x?keepalives_idle=soon": "a number for keepalives_idle",
    "postgresql://u@h/x?service=geheim": "a service that is defined",
    "postgresql://h/x?password=ge&heim": "& written as %26",
    "postgresql://h/x?user=u&password=ge&heim=1&port=1": "& written as %26",
    "postgresql://u:geheim%FF@h/x": "UTF-8",
    "postgresql://u:geheim@h/%FF": "UTF-8",
    "postgresql://u:geheim@::1/x": "IPv6 address in brackets",
    "postgresql://u:geheim@h,::1:5432/x": "IPv6 address in brackets",
    "postgresql://u:geheim@[::1/x": "IPv6 address in brackets",
    "postgresql://u:geheim@h..example/x": "between the dots",
    f"postgresql://u:geheim@{'h' * 64}/x": "between the dots",
    "postgresql:///x?host=a,b..c": "between the dots",
    "postgresql://h/x?hostaddr=h": "numeric addresses for hostaddr",
    "postgresql://h/x?hostaddr=127.0.0.1,127.0.0.2": "one hostaddr for each host",
    "postgresql://h/x?sslrootcert=": "a value for each parameter",
    "postgresql://h/x?replication=database": "no parameter replication",
    "postgresql://h/x?options=-csearch_path=a": "= written as %3D",
    "postgresql://h/x?sslmode=require;connect_timeout=3": "& between its parameters",
    "postgresql://h/x?&": "both sides of each &",
    "postgresql://h/x?sslmode=require&sslrootcert=system": "verify-full for sslmode",
    "postgresql://h/x?passfile=/": "others cannot read for passfile",
    "postgresql://u@h": "the name of one database",
    "postgresql://u@h/": "the name of one database",
    "postgresql://u@h/x/": "the name of one database",
    f"postgresql:///x?host=/{'x' * 93}": "at most 107 bytes",
    "postgresql:///?host=/tmp": "the name of one database",
}
REDIS_SLIPS = {
    "redis://:ge#heim@h/0": "# written as %23",
    "redis://:ge/heim@h/0": "/ written as %2F",
    "redis://:ge?heim@h/0": "? written as %3F",
    "redis://:ge@heim@h/0": "@ written as %40",
    "redis://:ge%heim@h/0": "% written as %25",
    "redis://:${geheim}@h/0": "${ written as %24%7B",
    "redis://:ge[heim@h/0": "percent-encoded",
    "redis://:geheim\uff0f@h/0": "percent-encoded",
    "unix://:ge/heim@/run/x": "/ written as %2F",
    "redis+sentinel://h/0": "without a plus sign",
    "sentinel://h/0": "valkey:// or valkeys://",
    "redis://h1:1,h2:2/0": "one host",
    "redis://h:0/0": "ports",
    "redis://h:99999": "ports",
    "redis://h/-1": "the number of one database",
    "redis://h/0?db=1": "the number of one database",
    "redis://h?db=geheim": "the number of one database",
    "redis://h?ssl=true": "start with rediss://",
    "redis://h?ssl_cert_reqs=none": "start with rediss://",
    "rediss://h?ssl_cert_reqs=geheim": "a value for ssl_cert_reqs",
    "rediss://h?ssl_check_hostname=geheim": "a value for ssl_check_hostname",
    "rediss://h?ssl_ca_certs=": "a value for each parameter",
    "redis://h?socket_timeout=0": "a value for socket_timeout",
    "redis://h?socket_timeout=-1": "a value for socket_timeout",
    "redis://h?socket_connect_timeout=nan": "a value for socket_connect_timeout",
    "redis://h?socket_keepalive=geheim": "a value for socket_keepalive",
    "redis://h?health_check_interval=-1": "a value for health_check_interval",
    "redis://h?max_connections=0": "a value for max_connections",
    "redis://h?client_name=ge%20heim": "a value for client_name",
    "redis://h?db=": "a value for each parameter",
    "redis://u:geheim@h?username=me": "the username before the host",
    "redis://:geheim@h?password=heim": "the password before the host",
    "redis://h?password=ge&heim": "& written as %26",
    "redis://:geheim%FF@h": "UTF-8",
    "redis://:geheim@::1": "IPv6 address in brackets",
    "redis://:geheim@::1:6379": "IPv6 address in brackets",
    "redis://:geheim@[h]": "IPv6 address in brackets",
    "redis://:geheim@[::1]x:6379": "IPv6 address in brackets",
    "redis://:geheim@h..example": "between the dots",
    "redis://h?socket_timeout=geheim": "a value for socket_timeout",
    "redis://h?decode_responses=true": "no parameter decode_responses,",
    "redis://h?protocol=3": "no parameter protocol,",
    "redis://h?retry_on_timeout=true": "no parameter retry_on_timeout,",
    "redis://h?password=ge+heim": "+ written as %2B",
    f"unix:///{'x' * 107}": "at most 107 bytes",
    "unix://run/redis.sock": "the path of a socket",
}
AROUND = {
    "{}\r": "carriage return",
    "{} ": "blanks",
    "\u00a0{}": "blanks",
    "\ufeff{}": "byte order mark",
    '"{}"': "quotes",
    "'{}'": "quotes",
}


def said(name: str, value: str) -> str:
    """What a program says that is given this."""
    with pytest.raises(SettingsError) as caught:
        read_variable(name, {name.upper(): value})
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "url", "words"),
    [
        *(("database_url", *slip) for slip in POSTGRES_SLIPS.items()),
        *(("redis_url", *slip) for slip in REDIS_SLIPS.items()),
        *(("database_url", around.format("postgresql://u:geheim@h/x"), words) for around, words in AROUND.items()),
        *(("redis_url", around.format("redis://:geheim@h/0"), words) for around, words in AROUND.items()),
    ],
)
def test_a_slip_is_named_in_one_sentence(name: str, url: str, words: str) -> None:
    """Without a piece of a password, wherever the slip has put that."""
    message = said(name, url)

    assert words in message
    assert message.startswith(f"{name.upper()} must ")
    assert "heim" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%40%2F%3F%23%25%20%2B%26%5B@h/x",
        "postgresql://u:p:+&=$[x]'ü@h/x",
        "postgresql:///x?user=me@server&password=p@ss&host=/run/postgresql",
        f"postgresql:///x?host=/{'x' * 92}&port=5432",
        "postgresql://u@h/x?dbname=y&application_name=a%20b",
        "postgresql://u@h/x?ssl=true",
        "postgresql://u@h/?dbname=x",
        "postgresql://u@h/x?sslmode=verify-full&sslrootcert=system",
    ],
)
def test_what_libpq_takes_is_taken(url: str) -> None:
    """Passwords with every character, percent-encoded where they must be."""
    assert url == postgres_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:p%40%2F%3F%23%25%20%2B%26%5B@h:6379/1",
        "redis://:p:+&=$'ü@[::1]:6379/1",
        "redis://h?username=me&password=p@ss%2B&db=3&socket_timeout=0.5&client_name=x",
        "unix://me:secret@/run/a@b.sock?db=1",
        f"unix:///{'x' * 106}?db=1",
        "rediss://h/0?ssl_cert_reqs=none&ssl_check_hostname=false",
    ],
)
def test_what_redis_py_takes_is_taken(url: str) -> None:
    """Likewise."""
    assert url == redis_url(url)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PGHOST", "h..example", "between the dots"),
        ("PGPORT", "http", "ports"),
        ("PGHOSTADDR", "h", "numeric addresses"),
    ],
)
def test_an_address_that_libpq_takes_from_its_own_variables_is_checked(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    """What the URL leaves out."""
    monkeypatch.setenv(variable, value)

    assert words in said("database_url", "postgresql:///x")


def test_a_name_with_a_byte_order_mark_is_told_from_one_that_is_missing() -> None:
    """An editor on Windows puts one before the first variable of a file."""
    with pytest.raises(SettingsError, match=r"is not set: its name has a byte order mark"):
        read_variable("database_url", {"\ufeffDATABASE_URL": "postgresql://h/x"})


# Certificates and keys


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a certificate, its key, another key, and files that are neither."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("good", "other"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-subj", f"/CN={name}", "-days", "2", "-keyout", f"{name}.key", "-out", f"{name}.crt"],
            cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
    (folder / "open.key").write_bytes((folder / "good.key").read_bytes())
    (folder / "open.key").chmod(0o644)
    (folder / "text").write_text("no certificate\n")
    (folder / "text").chmod(0o644)
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sslrootcert={}/missing", "read for sslrootcert, not {}/missing (No such file or directory)"),
        ("sslmode=verify-full&sslrootcert={}/text", "certificates in PEM for sslrootcert, which {}/text is not"),
        ("sslcert={}/missing&sslkey={}/good.key", "read for sslcert, not {}/missing"),
        ("sslcert={}/good.crt&sslkey={}/missing", "read for sslkey, not {}/missing"),
        ("sslcert={}/good.crt&sslkey={}/other.key", "its key for sslkey, which {}/good.crt and {}/other.key are not"),
        ("sslcert={}/good.crt&sslkey={}/open.key", "set {}/open.key to mode 0600"),
        ("sslcert={}/good.crt", "read for sslkey, not "),
        ("sslcrl={}/missing", "read for sslcrl, not {}/missing"),
        ("passfile={}/missing", "read for passfile, not {}/missing"),
        ("passfile={}/text", "set {}/text to mode 0600"),
        ("sslrootcert={}/pipe", "a file for sslrootcert, which {}/pipe is not"),
        ("sslcrldir={}/text", "a directory for sslcrldir, which {}/text is not"),
    ],
)
def test_a_file_of_postgres_that_cannot_be_used_is_named(files: Path, query: str, words: str) -> None:
    """With the parameter that names it, before anything waits for a connection."""
    message = said("database_url", f"postgresql://u@h/x?{query.replace('{}', str(files))}")

    assert words.replace("{}", str(files)) in message


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("ssl_ca_certs={}/missing", "read for ssl_ca_certs, not {}/missing (No such file or directory)"),
        ("ssl_ca_certs={}/text", "certificates in PEM for ssl_ca_certs, which {}/text is not"),
        ("ssl_ca_certs={}/pipe", "a file for ssl_ca_certs, which {}/pipe is not"),
        ("ssl_ca_path={}/text", "a directory for ssl_ca_path, which {}/text is not"),
        ("ssl_ca_path={}/missing", "read for ssl_ca_path, not {}/missing"),
        ("ssl_certfile={}/good.crt", "both ssl_certfile and ssl_keyfile"),
        ("ssl_certfile={}/good.crt&ssl_keyfile={}/missing", "read for ssl_keyfile, not {}/missing"),
        ("ssl_certfile={}/good.crt&ssl_keyfile={}/other.key", "{}/good.crt and {}/other.key are not"),
    ],
)
def test_a_file_of_redis_that_cannot_be_used_is_named(files: Path, query: str, words: str) -> None:
    """Likewise."""
    message = said("redis_url", f"rediss://h?{query.replace('{}', str(files))}")

    assert words.replace("{}", str(files)) in message


def test_verification_without_an_authority_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place where libpq would look for one is named."""
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert f"sslrootcert, not {tmp_path}/.postgresql/root.crt" in said(
        "database_url", "postgresql://h/x?sslmode=verify-ca"
    )


def test_certificates_and_keys_that_fit_are_taken(files: Path) -> None:
    """For both stores."""
    postgres_url(
        f"postgresql://h/x?sslmode=verify-full&sslrootcert={files}/good.crt&sslcert={files}/good.crt&sslkey={files}/good.key"
    )
    redis_url(f"rediss://h?ssl_ca_certs={files}/good.crt&ssl_certfile={files}/good.crt&ssl_keyfile={files}/good.key")
