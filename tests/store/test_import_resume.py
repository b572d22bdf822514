"""An import that was killed goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psycopg
import pytest
import redis
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.errors import LadderError
from service.model import UserId
from service.ranking.bulk import Line, Outcome, take, take_deferred
from service.ranking.deferred import Deferred
from service.ranking.repeats import Repeats
from service.settings import Settings
from service.store import bulk
from service.store.bulk import Busy, Plan, Progress, open_intake
from tests.conftest import Stores
from tests.embedded.processes import wait_until
from tests.ranking.equality import assert_mirror_equals_ledger
from tests.store.import_program import COMMAND, environment, result, run
from tests.store.imports import Totals, Users, store, stored
from tests.store.test_bulk import EXISTING, IDS, LISTS, NAMES, RATINGS, expected

DIGEST = b"the digest of a list"
PRESENT: Users = {"o": ("other", 1500), "s1": ("first", 1500), "s2": ("second", 1500)}
SWAPPED = {100: ("second", "s1"), 22_000: ("first", "s2")}


def made(*, ids: bool) -> bytes:
    """A list of some 23,000 lines; some are refused, by themselves, by one of an earlier chunk, or by a user."""
    lines = [b"id,username,rating" if ids else b"username,rating"]
    for number in range(23_000):
        name, rating = f"name-{number}", 1000 + number % 100
        if number % 4000 == 1000:
            rating = 99
        elif number % 4000 == 2000:
            name = f"Name-{number // 2 + 1}"
        elif number % 4000 == 3000:
            name = "other"
        user_id = f"u{number // 2 if number % 5000 == 2500 else number}"
        if number in SWAPPED:
            # Two users that there are, with each other's name: lines of different chunks.
            name, user_id = SWAPPED[number]
        lines.append(f"{user_id + ',' if ids else ''}{name},{rating}".encode())
    return b"\n".join(lines)


@contextmanager
def killed(settings: Settings, path: Path) -> Iterator[None]:
    """An import that was killed in the middle of its third chunk, when two were committed."""
    store(settings.database_url, PRESENT)
    with psycopg.connect(settings.database_url) as blocking:
        # The import waits for the end of this transaction, to know whether the name is taken.
        blocking.execute("INSERT INTO users (id, username, rating) VALUES ('blocking', 'name-12345', 1500)")
        with subprocess.Popen(
            [*COMMAND, path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(settings)
        ) as program:
            with psycopg.connect(settings.database_url, autocommit=True) as watching:
                wait_until(lambda: _waiting(watching))
            program.send_signal(signal.SIGKILL)
        blocking.rollback()
    assert 9_900 < len(stored(settings.database_url)) < 10_001
    yield


def _waiting(connection: psycopg.Connection) -> bool:
    query = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(connection.execute(query).rowcount)


def left(settings: Settings) -> int:
    """How many rows are kept of imports."""
    with psycopg.connect(settings.database_url) as connection:
        query = "SELECT (SELECT count(*) FROM imports) + (SELECT count(*) FROM import_lines)"
        return int((connection.execute(query).fetchone() or (0,))[0])


def taken(database_url: str) -> dict[str, tuple[str, int, int]]:
    """The users that were imported, and the one that stays as it was: all but those whose lines wait for the end."""
    return {user_id: user for user_id, user in stored(database_url).items() if user_id not in ("s1", "s2")}


def board(database_url: str) -> list[tuple[str, int]]:
    """Every name and rating."""
    return sorted((name, rating) for name, rating, _ in stored(database_url).values())


@pytest.mark.parametrize("ids", [True, False])
def test_a_killed_import_ends_like_one_that_was_not(
    settings: Settings, stores: Stores, tmp_path: Path, *, ids: bool
) -> None:
    """After SIGKILL, and a dry run, the same command begins behind what is committed: same users, counts, refused lines."""
    path, whole = tmp_path / "list.csv", tmp_path / "whole.csv"
    path.write_bytes(made(ids=ids))
    whole.write_bytes(made(ids=ids))
    with killed(settings, path):
        versions = {user_id: version for user_id, (_, _, version) in taken(settings.database_url).items()}
        assert 3 == run(settings, path, "--dry-run").returncode
        done = run(settings, path, "--json")
    assert versions.items() <= {key: version for key, (_, _, version) in stored(settings.database_url).items()}.items()
    asyncio.run(assert_mirror_equals_ledger(settings))
    assert 0 == left(settings)

    other = msgspec.structs.replace(settings, database_url=stores.url(name := stores.create(stores.template)))
    try:
        store(other.database_url, PRESENT)
        with redis.Redis.from_url(settings.redis_url) as client:
            client.flushdb()
        undisturbed = run(other, whole, "--json")
        assert board(other.database_url) == board(settings.database_url)
    finally:
        stores.drop(name)

    assert 3 == done.returncode == undisturbed.returncode
    resumed, expected = result(done), result(undisturbed)
    assert (10_001, None) == (resumed.pop("resumed_after_line"), expected.pop("resumed_after_line"))
    rejects, undisturbed_rejects = Path(resumed.pop("rejects")), Path(expected.pop("rejects"))
    assert expected == resumed
    assert undisturbed_rejects.read_bytes() == rejects.read_bytes()
    assert expected["refused"] + 1 == len(rejects.read_text().splitlines())


@pytest.mark.parametrize("why", ["a changed file", "no rejects", "asked to", "a week later"])
def test_what_cannot_be_resumed_starts_anew(settings: Settings, tmp_path: Path, why: str) -> None:
    """The whole list is taken from its first line, and what was taken already is not touched."""
    path = tmp_path / "list.csv"
    path.write_bytes(made(ids=True))
    with killed(settings, path):
        before = taken(settings.database_url)
        match why:
            case "a changed file":
                path.write_bytes(path.read_bytes().replace(b"name-20000,1000", b"name-20000,1001"))
            case "no rejects":
                (tmp_path / "list.csv.rejects.csv").unlink()
            case "a week later":
                with psycopg.connect(settings.database_url) as connection:
                    connection.execute("UPDATE imports SET touched_at = now() - interval '8 days'")
        done = run(settings, path, "--json", *(["--anew"] if why == "asked to" else []))

    assert result(done)["resumed_after_line"] is None
    assert len(before) - 1 == result(done)["unchanged"]
    assert before.items() <= stored(settings.database_url).items()
    assert (tmp_path / "list.csv.rejects.csv").read_text().count("\nline,reason") == 0
    # What is kept of a changed list is forgotten after a week.
    assert (left(settings) > 0) == (why == "a changed file")


ROWS = st.one_of(
    LISTS,
    st.lists(st.tuples(st.none(), st.sampled_from(NAMES), RATINGS), max_size=14),
    st.lists(st.tuples(IDS, st.sampled_from(NAMES), RATINGS), max_size=14),
)


@pytest.mark.timeout(300)
@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(existing=EXISTING, rows=ROWS, chunk=st.integers(1, 6), sessions=st.integers(1, 4))
@example(existing={"a": ("ann", 1500)}, rows=[(None, "ann", 1000), (UserId("a"), "dee", 1000)], chunk=1, sessions=1)
@example(existing={}, rows=[(UserId("a"), "ann", 1000), (UserId("a"), "dee", 1000)], chunk=1, sessions=1)
def test_an_import_by_several_sessions_is_one(
    database_url: str, existing: Users, rows: list[tuple[UserId | None, str, int]], chunk: int, sessions: int
) -> None:
    """However it is cut, by whatever ends a session, and though only what may be repeated is noted, it ends the same."""
    lines = [Line(number, *row) for number, row in enumerate(rows, start=2)]
    store(database_url, existing)
    users, totals = expected(existing, lines)
    repeats, refused = Repeats(), set[int]()
    for line in lines:
        repeats.add(line)
    done, taken = Progress(), lines
    while taken or done.deferred:
        with open_intake(database_url, digest=DIGEST) as intake:
            assert done == intake.begin()
            for _ in range(sessions):
                taken = [line for line in lines if line.number > done.line][:chunk]
                if not taken and not done.deferred:
                    break

                def settle(outcome: Outcome, taken: list[Line] = taken, before: Progress = done) -> None:
                    nonlocal done
                    done = Progress(
                        taken[-1].number if taken else before.line,
                        before.created + outcome.created,
                        before.updated + outcome.updated,
                        before.unchanged + outcome.unchanged,
                        deferred=tuple(line.number for line in outcome.deferred.lines),
                    )
                    intake.keep(done)

                deferred = Deferred(line for line in lines if line.number in done.deferred)
                if taken:
                    outcome = take(intake, taken, deferred=deferred, repeats=repeats, settle=settle)
                else:
                    outcome = take_deferred(intake, deferred, settle=settle)
                refused |= set(outcome.refused)
            if not taken and not done.deferred:
                intake.forget()

    assert totals == Totals(done.created, done.updated, done.unchanged, frozenset(refused))
    assert sorted(users.values()) == sorted(user[:2] for user in stored(database_url).values())


def test_one_list_is_imported_by_one_process(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one is told so; another list, and the same one afterwards, may be imported."""
    monkeypatch.setitem(bulk._QUERIES, "patient", "SET LOCAL lock_timeout = '50ms'")
    with open_intake(database_url, digest=DIGEST) as first:
        first.begin()
        with open_intake(database_url, digest=DIGEST) as second, pytest.raises(Busy):
            second.begin()
        with open_intake(database_url, digest=b"another list") as other:
            assert Progress() == other.begin()
    with open_intake(database_url, digest=DIGEST) as later:
        assert Progress() == later.begin()


@pytest.fixture
def batches(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A table of the transactions that forgot lines, and how many each; they are to forget three at a time."""
    monkeypatch.setattr(bulk, "_BATCH_LINES", 3)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "CREATE TABLE batches (xact xid8, lines bigint);"
            " CREATE FUNCTION batch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO batches SELECT pg_current_xact_id(), count(*) FROM gone; RETURN NULL; END $$;"
            " CREATE TRIGGER batch AFTER DELETE ON import_lines REFERENCING OLD TABLE AS gone"
            " FOR EACH STATEMENT EXECUTE FUNCTION batch()"
        )
    return "SELECT sum(lines)::bigint FROM batches GROUP BY xact ORDER BY xact"


def noted(database_url: str, digest: bytes = DIGEST) -> None:
    """An import that was ended behind its line 9, with eight lines noted."""
    with open_intake(database_url, digest=digest) as intake, intake.transaction():
        intake.write(Plan(noted=[(line, UserId(f"u{line}"), f"name-{line}") for line in range(2, 10)]))
        intake.keep(Progress(line=9))


@pytest.mark.parametrize("why", ["it was imported", "it is stale", "asked to"])
def test_a_list_is_forgotten_in_batches(settings: Settings, batches: str, why: str) -> None:
    """However long it is, no statement and no transaction forgets more than a batch of its lines."""
    noted(settings.database_url)
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        if why == "it is stale":
            connection.execute("UPDATE imports SET touched_at = now() - interval '8 days'")
        digest = b"another list" if why == "it is stale" else DIGEST
        with open_intake(settings.database_url, digest=digest) as intake:
            done = intake.begin(anew=why == "asked to")
            if why == "it was imported":
                assert 9 == done.line
                intake.forget()
            else:
                assert Progress() == done

        assert [(3,), (3,), (2,)] == connection.execute(batches).fetchall()
    assert 0 == left(settings)


def test_what_is_left_of_a_forgotten_list_is_not_gone_on_with(settings: Settings, batches: str) -> None:
    """Ended while it forgets, to begin anew, an import begins at the first line: it knows not what it had taken."""
    noted(settings.database_url)
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE batches ADD CHECK (lines = 3)")
        with open_intake(settings.database_url, digest=DIGEST) as intake, pytest.raises(LadderError):
            intake.begin(anew=True)
        assert [(3,), (3,)] == connection.execute(batches).fetchall()
        connection.execute("ALTER TABLE batches DROP CONSTRAINT batches_lines_check")
    with open_intake(settings.database_url, digest=DIGEST) as intake:
        assert Progress() == intake.begin()

    assert 0 == left(settings)


def test_a_list_that_is_imported_is_not_forgotten_by_others(settings: Settings) -> None:
    """Not even a stale one: whoever has it may have noted its lines just now."""
    noted(settings.database_url)
    with open_intake(settings.database_url, digest=DIGEST) as first:
        assert 9 == first.begin().line
        with psycopg.connect(settings.database_url) as connection:
            connection.execute("UPDATE imports SET touched_at = now() - interval '8 days'")
        with open_intake(settings.database_url, digest=b"another list") as other:
            other.begin()
        assert 9 == left(settings)
    with open_intake(settings.database_url, digest=b"another list") as other:
        other.begin()
        with open_intake(settings.database_url, digest=DIGEST) as later:
            assert Progress() == later.begin()

    assert 0 == left(settings)


def test_a_file_that_changes_under_the_import_is_noticed(settings: Settings, tmp_path: Path) -> None:
    """Exit code 2 and a sentence: what was learnt of the list by reading it first holds no longer."""
    path = tmp_path / "list.csv"
    path.write_bytes(made(ids=False))
    store(settings.database_url, {})
    with psycopg.connect(settings.database_url) as blocking:
        blocking.execute("INSERT INTO users (id, username, rating) VALUES ('blocking', 'name-7', 1500)")
        with subprocess.Popen(
            [*COMMAND, path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(settings)
        ) as program:
            with psycopg.connect(settings.database_url, autocommit=True) as watching:
                wait_until(lambda: _waiting(watching))
            with path.open("ab") as file:
                file.write(b"\nlate,1500\n")
            blocking.rollback()
            assert program.stderr is not None
            errors = program.stderr.read()

    assert 2 == program.returncode
    assert b"the file was changed while it was imported" in errors
