"""Whatever a role, a database or a server is set to, the product answers as SQL does in a session without settings."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from service.settings import Settings
from tests.conftest import Stores
from tests.store.every_operation import assert_equal_to_sql, carry_out, empty

NASTY: dict[str, dict[str, str]] = {
    "values": {
        "datestyle": "German, DMY",
        "intervalstyle": "sql_standard",
        "timezone": "Asia/Kathmandu",
        "client_encoding": "SQL_ASCII",
        "bytea_output": "escape",
        "extra_float_digits": "-15",
        "array_nulls": "off",
    },
    "meaning": {
        "search_path": "elsewhere, pg_catalog",
        "transform_null_equals": "on",
        "standard_conforming_strings": "off",
        "row_security": "off",
        "exit_on_error": "on",
        "client_min_messages": "debug5",
        "quote_all_identifiers": "on",
    },
    "transactions": {
        "default_transaction_isolation": "serializable",
        "default_transaction_read_only": "on",
        "default_transaction_deferrable": "on",
        "synchronous_commit": "off",
    },
    "timeouts": {
        "statement_timeout": "1",
        "lock_timeout": "1",
        "idle_in_transaction_session_timeout": "1",
        "idle_session_timeout": "1",
    },
    "plans": {
        **{f"enable_{way}": "off" for way in ("seqscan", "indexscan", "bitmapscan", "tidscan", "nestloop", "hashjoin")},
        "jit": "on",
        "jit_above_cost": "0",
        "plan_cache_mode": "force_generic_plan",
        "work_mem": "64",
        "cursor_tuple_fraction": "0",
    },
}


class Setting(NamedTuple):
    """A setting as the server describes it."""

    name: str
    vartype: str
    enumvals: list[str] | None
    min_val: str | None
    max_val: str | None
    setting: str


class Given:
    """A database whose settings, or those of a role in it, can be changed; `clean` sets all of them back."""

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self.settings = settings
        self._stores = stores
        parts = conninfo_to_dict(settings.database_url)
        database, role = (sql.Identifier(str(parts[name])) for name in ("dbname", "user"))
        self._subjects = (
            sql.SQL("DATABASE {}").format(database),
            sql.SQL("ROLE {} IN DATABASE {}").format(role, database),
        )

    def set(self, values: Mapping[str, str], *, of_role: bool = False) -> list[str]:
        """Set what can be set; returns the names of the rest, which this server refuses."""
        refused = []
        for name, value in values.items():
            # A path and a style are lists of words, not one.
            words = [value] if name not in ("search_path", "datestyle") else [word.strip() for word in value.split(",")]
            try:
                self._stores.admin(
                    sql.SQL("ALTER {} SET {} = {}").format(
                        self._subjects[of_role], sql.Identifier(name), sql.SQL(", ").join(map(sql.Literal, words))
                    )
                )
            except psycopg.Error:
                refused.append(name)
        return refused

    def clean(self) -> None:
        """Reset all."""
        for subject in self._subjects:
            self._stores.admin(sql.SQL("ALTER {} RESET ALL").format(subject))


@pytest.fixture
def given(settings: Settings, stores: Stores) -> Iterator[Given]:
    """The test's own database."""
    database = Given(settings, stores)
    with contextlib.closing(psycopg.connect(settings.database_url, autocommit=True)) as session:
        # Tables of the same names, which nothing may read or write.
        session.execute("CREATE SCHEMA elsewhere")
        session.execute("CREATE TABLE elsewhere.users (LIKE public.users)")
        session.execute("CREATE TABLE elsewhere.user_tombstones (LIKE public.user_tombstones)")
    yield database
    database.clean()


@pytest.mark.parametrize("kind", NASTY)
async def test_settings_change_nothing(given: Given, kind: str) -> None:
    """What was created, rated, searched for, written to the history, reconciled and exported is what SQL says."""
    assert [] == given.set(NASTY[kind])
    told = await carry_out(given.settings)
    given.clean()

    await assert_equal_to_sql(given.settings, told)


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_a_thousand_combinations_change_nothing(given: Given) -> None:
    """Values at random for some of what a session may set, as the server itself describes it."""
    seed = random.SystemRandom().randrange(1 << 32)
    drawn = random.Random(seed)
    with psycopg.connect(given.settings.database_url) as session:
        known = [
            Setting(*row)
            for row in session.execute(
                "SELECT name, vartype, enumvals, min_val, max_val, setting FROM pg_settings"
                " WHERE context = 'user' ORDER BY name"
            )
        ]
    failed: list[Exception] = []
    for _ in range(COMBINATIONS):
        chosen = {one.name: value for one in drawn.sample(known, 12) if (value := draw(drawn, one)) is not None}
        given.set(chosen, of_role=drawn.random() < 0.5)
        try:
            told = await carry_out(given.settings)
            given.clean()
            await assert_equal_to_sql(given.settings, told)
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001  every combination is tried
            wrong = AssertionError(f"{chosen}: {type(error).__name__}: {error}")
            failed.append(wrong)
        given.clean()
        empty(given.settings)

    if failed:
        message = f"seed {seed}"
        raise ExceptionGroup(message, failed)


COMBINATIONS = 1000
TEXTS: dict[str, tuple[str, ...]] = {
    "DateStyle": ("ISO, DMY", "SQL, DMY", "Postgres, MDY", "German, YMD"),
    "TimeZone": ("UTC", "Asia/Kathmandu", "America/St_Johns", "PST8PDT", "Pacific/Apia"),
    "client_encoding": ("SQL_ASCII", "LATIN1", "UTF8", "WIN1252", "EUC_JP", "SJIS", "BIG5"),
    "search_path": (
        "elsewhere",
        '"$user", public',
        "pg_catalog",
        "",
        "nowhere, elsewhere, public",
        "pg_temp, elsewhere",
    ),
    "application_name": ("", "somebody's"),
    "default_text_search_config": ("simple", "pg_catalog.german"),
    "lc_monetary": ("C", "POSIX"),
    "lc_numeric": ("C", "POSIX"),
    "lc_time": ("C", "POSIX"),
    "restrict_nonsystem_relation_kind": ("view", "view,foreign-table", ""),
    "timezone_abbreviations": ("Default", "Australia", "India"),
    "default_tablespace": ("pg_default", ""),
    "temp_tablespaces": ("pg_default", ""),
    "default_table_access_method": ("heap",),
}
"""Values of what is neither a number nor one of a few words."""
LEFT_OUT = {
    # Postgres itself then ends a session, or takes a second for a statement that takes a millisecond.
    "local_preload_libraries",
}


def draw(drawn: random.Random, setting: Setting) -> str | None:
    """Return a valid value: a word that is known, or of a range an end, one near its beginning, or any."""
    if setting.name in LEFT_OUT:
        return None
    if setting.vartype in ("bool", "enum", "string"):
        words = {"bool": ["on", "off"], "enum": setting.enumvals}.get(setting.vartype)
        return drawn.choice(words or TEXTS.get(setting.name, (setting.setting,)))
    low, high = float(setting.min_val or 0), float(setting.max_val or 0)
    value = drawn.choice((low, high, min(low + drawn.randrange(100), high), low + (high - low) * drawn.random()))
    return str(int(value)) if setting.vartype == "integer" else repr(value)


@pytest.mark.parametrize("path", ["", "elsewhere"])
def test_triggers_do_not_follow_the_writer(given: Given, path: str) -> None:
    """What is written by hand, from a session that finds no tables or another schema's, is stamped and buried as ours."""
    with psycopg.connect(given.settings.database_url, autocommit=True) as session:
        session.execute("CREATE SEQUENCE elsewhere.users_version_seq")
        session.execute("SELECT set_config('search_path', %s, false)", (path,))
        created = "INSERT INTO public.users (id, username, rating) VALUES ('u', 'name', 1500) RETURNING version"
        versions = [
            session.execute(statement).fetchall()[0][0]
            for statement in (created, "UPDATE public.users SET rating = 1600 RETURNING version")
        ]
        session.execute("DELETE FROM public.users")
        buried = session.execute("SELECT id, version FROM public.user_tombstones").fetchall()
        session.execute(created)

        assert [1, 2] == versions
        assert [("u", 3)] == buried
        assert [(4,)] == session.execute("SELECT version FROM public.users").fetchall()
