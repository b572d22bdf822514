"""Settings: every variable, good and bad, and what is said about a bad one."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest

from service import settings as settings_module
from service.cpus import usable_cpus
from service.settings import Settings, SettingsError

NEEDED = {"DATABASE_URL": "postgresql://ladder:geheim@db/ladder", "REDIS_URL": "redis://:geheim@cache:6379/0"}
GOOD: dict[str, list[tuple[str, Any]]] = {
    "DATABASE_URL": [
        (url, url)
        for url in (
            "postgresql://ladder@db/ladder",
            "postgres://ladder:geheim@db:5433/ladder?sslmode=require",
            "postgresql://postgres@/ladder?host=%2Ftmp%2Fpg&port=5432",
            "postgresql://ladder@[::1]:5432/ladder",
            "postgresql://ladder@db1:5432,db2:5433/ladder?target_session_attrs=read-write",
            "postgresql://ladder@[::1]:5432,[::2]:5433,db3/ladder?target_session_attrs=primary",
            "postgresql://ladder@db1,db2/ladder?port=5432",
            "postgresql:///ladder?host=db1,db2&port=5432,5433",
        )
    ],
    "REDIS_URL": [
        *((url, url) for url in ("redis://cache", "rediss://user:geheim@cache:6380/1", "unix:///tmp/valkey.sock?db=0")),
        ("valkey://:geheim@cache:6379/1", "redis://:geheim@cache:6379/1"),
        ("valkeys://cache", "rediss://cache"),
    ],
    "HOST": [
        ("127.0.0.1", "127.0.0.1"),
        ("127.8.8.8", "127.8.8.8"),
        ("::1", "::1"),
        ("localhost", "localhost"),
        ("LocalHost", "localhost"),
    ],
    "PORT": [("1", 1), ("8080", 8080), ("65535", 65535)],
    "WORKERS": [("1", 1), ("64", 64)],
    "BOARD_TAKEOVER": [("auto", "auto"), ("confirm", "confirm")],
    "LOG_LEVEL": [(level, level) for level in ("debug", "info", "warning", "error")],
    "MIGRATE_ON_START": [("true", True), ("false", False)],
    "ALLOW_ANONYMOUS_WRITES": [("true", True), ("false", False)],
    "CHECK_SAMPLE": [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("1.0", 1.0)],
    "CURSOR_SECRET": [("0123456789abcdef", "0123456789abcdef"), ("ü" * 16, "ü" * 16)],
    "API_KEYS": [("0a" * 32, (b"\x0a" * 32,)), (f"{'ab' * 32}, {'CD' * 32}", (b"\xab" * 32, b"\xcd" * 32))],
    "CORS_ALLOW_ORIGINS": [
        ("https://example.org", ("https://example.org",)),
        ("http://localhost:3000,https://a.b", ("http://localhost:3000", "https://a.b")),
        ("http://[::1]:80", ("http://[::1]:80",)),
    ],
    "RATE_LIMIT_PER_SECOND": [("0", 0), ("1", 1), ("1000000", 1_000_000)],
    "RATE_LIMIT_BURST": [("0", 0), ("1", 1), ("1000000", 1_000_000)],
    "ROOT_PATH": [
        ("/", ""),
        ("/ladder", "/ladder"),
        ("/ladder/", "/ladder"),
        ("/a/~b/c.d_e-F@1:+", "/a/~b/c.d_e-F@1:+"),
        ("/...", "/..."),
    ],
    "TRUSTED_PROXIES": [
        ("10.0.0.1", (ip_network("10.0.0.1"),)),
        ("::ffff:10.0.0.1, ::ffff:10.0.0.0/104", (ip_network("10.0.0.1"), ip_network("10.0.0.0/8"))),
        ("10.0.0.0/8, fd00::/8", (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))),
    ],
    "SENTRY_DSN": [("https://key@sentry.example/1", "https://key@sentry.example/1")],
    "DRAIN_SECONDS": [("0", 0), ("60", 60)],
    "MAX_IN_FLIGHT": [("1", 1), ("100000", 100_000)],
    "MAX_CONNECTIONS": [("1", 1), ("1000000", 1_000_000)],
    "IDLE_SECONDS": [("1", 1), ("3600", 3600)],
    "MAX_STREAMS": [("0", 0), ("100000", 100_000)],
    "STREAM_HEARTBEAT_SECONDS": [("1", 1), ("300", 300)],
}
BAD = {
    "DATABASE_URL": [
        "db",
        "db/ladder",
        "mysql://db/ladder",
        "redis://db",
        "host=db dbname=ladder",
        "://",
        "1",
        *(f"postgresql://h/x?{wrong}" for wrong in ("bogus=1", "connect_timeout=abc", "sslmode=bogus", "port=abc")),
        *(f"postgresql://{wrong}/x" for wrong in ("%zz", "h:0", "h:65536", "h1:5432,h2:70000", "h1:a,h2:1", "h:5²")),
        *("postgresql://h1,h2,h3/x?port=1,2", "postgresql://h1,h2/x?target_session_attrs=standby"),
        *("postgresql://h/x?target_session_attrs=prefer-standby", "postgresql:h", "postgresql"),
        *(" postgresql://h/x", "postgresql://h/x\r", "\ufeffpostgresql://h/x", "'postgresql://h/x'"),
    ],
    "REDIS_URL": [
        *("cache", "cache:6379", "http://cache", "postgresql://cache", "redis", "1", "unix://", "unix:///"),
        *("redis://h?db=foo", "redis://h?socket_timeout=abc", "redis://h?bogus=1", "redis://h/x", "redis://h/9x"),
    ],
    "HOST": [
        "a b",
        "user@host",
        "http://host",
        "127.0.0.1/8",
        "a\nb",
        "\x00",
        "[::1]",
        "fe80::1%lo",
        "127.0.0.1:80",
        "localhost:8080",
    ],
    "PORT": ["0", "65536", "-1", "+1", "80.0", "8e3", "0x50", " 80", "80 ", "\uff18\uff10", "http", "9" * 30],
    "WORKERS": ["0", "65", "-1", "auto", "1.5", "²"],
    "BOARD_TAKEOVER": ["true", "Auto", "never"],
    "LOG_LEVEL": ["DEBUG", "warn", "critical", "20", " info"],
    "MIGRATE_ON_START": ["True", "yes", "1", "0", "on", "false "],
    "ALLOW_ANONYMOUS_WRITES": ["True", "yes", "1", "0", "on", "false "],
    "CHECK_SAMPLE": ["2", "1.1", "-0.1", "1e-3", ".5", "nan", "x"],
    "CURSOR_SECRET": ["short", "0123456789abcde", "0123456789abcdef\r", "'0123456789abcdef'"],
    "API_KEYS": ["secret", "0a" * 31, "0a" * 33, "0g" * 32, "0a" * 32 + ",", ",", "*"],
    "CORS_ALLOW_ORIGINS": [
        "*",
        "example.org",
        "https://example.org/",
        "https://Example.org",
        "null",
        "https://a,",
        "https://a:99999",
        "https://a:0",
        "ftp://a",
    ],
    "RATE_LIMIT_PER_SECOND": ["-1", "1000001", "1.5", "100/s"],
    "RATE_LIMIT_BURST": ["-1", "1000001", "1.5"],
    "ROOT_PATH": [
        "ladder",
        "//evil",
        "/a//b",
        "http://evil/a",
        "/a/../b",
        "/..",
        "/.",
        "/a b",
        "/a?b",
        "/a#b",
        "/a%2fb",
        "/a\\b",
        "/a,/b",
        "/\u00e9",
        "/a\n",
        "/" + "a" * 200,
        "//",
    ],
    "TRUSTED_PROXIES": ["proxy", "10.0.0.1/8", "10.0.0.0/33", "*", "10.0.0.1,"],
    "SENTRY_DSN": ["sentry.example", "ftp://key@sentry.example/1"],
    "DRAIN_SECONDS": ["-1", "61", "0.5"],
    "MAX_IN_FLIGHT": ["0", "100001", "-1"],
    "MAX_CONNECTIONS": ["0", "1000001", "-1"],
    "IDLE_SECONDS": ["0", "3601", "-1", "0.5"],
    "MAX_STREAMS": ["-1", "100001", "many"],
    "STREAM_HEARTBEAT_SECONDS": ["0", "301", "1.5"],
}


def refused(**variables: str) -> str:
    """What is said about these variables beside the needed ones."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({**NEEDED, **variables})
    return str(caught.value)


def test_the_tables_have_every_variable() -> None:
    """A new setting needs a line in each."""
    names = {field.upper() for field in Settings.__struct_fields__}

    assert names == set(GOOD) == set(BAD)


@pytest.mark.parametrize(("name", "text", "value"), [(name, *case) for name, cases in GOOD.items() for case in cases])
def test_a_good_value_is_taken(name: str, text: str, value: object) -> None:
    """As what it means, under the field of that name."""
    assert value == getattr(Settings.from_env({**NEEDED, name: text}), name.lower())


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_a_bad_value_is_refused_by_name(name: str, text: str) -> None:
    """In one line that names the variable and says what it must be."""
    message = refused(**{name: text})

    assert re.fullmatch(rf"{name} must (be|have|name|start) [^\n]+\.", message)


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
def test_a_url_that_is_missing_is_named(name: str) -> None:
    """An empty variable is a missing one."""
    for environment in ({**NEEDED, name: ""}, {key: value for key, value in NEEDED.items() if key != name}):
        with pytest.raises(SettingsError, match=f"^{name} is not set\\.$"):
            Settings.from_env(environment)


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
@pytest.mark.parametrize(
    "text",
    [
        "mysql://user:geheim@host/name",
        "user:geheim@host",
        "geheim",
        "://user:geheim@host",
        "postgresql//user:geheim@host",
        "mysql://user:geheim@[::1/name",
        "mysql://user:[geheim]@host/name",
        "mysql://user:geheim\uff0f@host/name",
    ],
)
def test_a_bad_url_is_not_repeated(name: str, text: str) -> None:
    """It may hold a password, and the message goes to a terminal and to logs."""
    message = refused(**{name: text})

    assert message.startswith(f"{name} must ")
    assert "geheim" not in message


def test_a_short_secret_is_not_repeated() -> None:
    """Whoever reads the log learns nothing of it."""
    assert "geheim" not in refused(CURSOR_SECRET="geheim")


@pytest.mark.parametrize("password", ["geheim\uff0f", "[geheim]", "]geheim[", "ge%2Fheim", "ge:heim", "geheim@"])
@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
def test_an_unusual_password_is_not_repeated_either(name: str, password: str) -> None:
    """Whether or not the URL can be understood with such a password in it."""
    scheme = "postgresql" if name == "DATABASE_URL" else "redis"
    said = ""
    try:
        Settings.from_env({**NEEDED, name: f"{scheme}://user:{password}@host/0"})
    except SettingsError as error:
        said = str(error)

    assert "heim" not in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "10.0.0.1", "example.org", "localhost.example.org"])
def test_who_can_be_reached_from_outside_must_mean_it(host: str) -> None:
    """There is no authentication, so everyone who reaches the address may write."""
    message = refused(HOST=host)

    assert message.startswith(f"HOST is {host}, which is not loopback")
    assert "ALLOW_ANONYMOUS_WRITES=true" in message
    assert message == refused(HOST=host, ALLOW_ANONYMOUS_WRITES="false")
    assert host == Settings.from_env({**NEEDED, "HOST": host, "ALLOW_ANONYMOUS_WRITES": "true"}).host


def test_defaults_are_those_of_a_laptop() -> None:
    """Two URLs are enough; empty and foreign variables count as not set."""
    expected = Settings(database_url=NEEDED["DATABASE_URL"], redis_url=NEEDED["REDIS_URL"])

    assert expected == Settings.from_env(NEEDED)
    assert expected == Settings.from_env(
        {**NEEDED, **dict.fromkeys(set(GOOD) - set(NEEDED), ""), "port": "1", "X": "1"}
    )
    assert ("127.0.0.1", 8080, "info", True, False, None, min(usable_cpus(), 64)) == (
        expected.host,
        expected.port,
        expected.log_level,
        expected.migrate_on_start,
        expected.allow_anonymous_writes,
        expected.cursor_secret,
        expected.workers,
    )


def test_more_processors_than_workers_are_allowed_make_the_most_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default keeps to the range that the variable has."""
    monkeypatch.setattr(settings_module, "usable_cpus", lambda: 192)

    assert Settings.from_env(NEEDED).workers == 64


def test_settings_stay_as_they_were_read() -> None:
    """Whoever is handed them cannot change them for the others."""
    settings = Settings.from_env(NEEDED)

    with pytest.raises(AttributeError):
        settings.port = 1  # type: ignore[misc]

    assert isinstance(settings, msgspec.Struct)
