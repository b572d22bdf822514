"""What an import does to the users there are."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.model import NewUser, UserId
from service.ranking.bulk import Line
from service.store.bulk import _QUERIES, Plan, open_intake
from tests.store.imports import Totals, Users, reasons, run, store, stored


class Reference:
    """The users, and what becomes of one line after the other, over plain dicts. A new id is written `new-<line>`."""

    def __init__(self, users: Users) -> None:
        self.users = dict(users)
        self.counts = {"created": 0, "updated": 0, "unchanged": 0}
        self.refused: set[int] = set()
        self._ids: dict[str, int] = {}
        self._names: dict[str, int] = {}
        self._deferred: dict[int, Line] = {}

    def take(self, line: Line) -> None:
        name = line.username.lower()
        owner = self._owner(name)
        user_id = line.id or owner or f"new-{line.number}"
        waiting = self._deferred.get(self._names.get(name, 0))
        if user_id in self._ids or (name in self._names and not (waiting and user_id == owner)):
            self.refused.add(line.number)
            return
        if waiting:
            del self._ids[waiting.id or ""]
            self._refuse(waiting)
        self._ids[user_id] = self._names[name] = line.number
        if owner in (None, user_id):
            self._apply(user_id, line)
        else:
            self._deferred[line.number] = line

    def end(self) -> None:
        """Take what was put off, all at once, but for the lines whose name a user keeps."""
        while kept := [line for line in self._deferred.values() if self._is_kept(line)]:
            for line in kept:
                self._refuse(line)
        for line in self._deferred.values():
            self._apply(str(line.id), line)

    def _owner(self, name: str) -> str | None:
        return next((user_id for user_id, (held, _) in self.users.items() if held.lower() == name.lower()), None)

    def _is_kept(self, line: Line) -> bool:
        owner = self._owner(line.username)
        return owner is not None and owner not in {each.id for each in self._deferred.values()}

    def _refuse(self, line: Line) -> None:
        self.refused.add(line.number)
        del self._deferred[line.number]

    def _apply(self, user_id: str, line: Line) -> None:
        before = self.users.get(user_id)
        after = self.users[user_id] = (before[0] if before and line.id is None else line.username, line.rating)
        self.counts["created" if before is None else "unchanged" if before == after else "updated"] += 1


def expected(users: Users, lines: Sequence[Line]) -> tuple[Users, Totals]:
    """The users after these lines, and what is reported, by the reference."""
    reference = Reference(users)
    for line in lines:
        reference.take(line)
    reference.end()
    return reference.users, Totals(**reference.counts, refused=frozenset(reference.refused))


NAMES = ["ann", "Ann", "bob", "BOB", "cid", "dee", "Eve"]
IDS = st.sampled_from([UserId(letter) for letter in "abcd"])
RATINGS = st.sampled_from([1000, 1500, 5000])
LISTS = st.lists(st.tuples(st.none() | IDS, st.sampled_from(NAMES), RATINGS), max_size=14)
EXISTING = st.dictionaries(IDS, st.tuples(st.sampled_from(NAMES), RATINGS)).filter(
    lambda users: len({name.lower() for name, _ in users.values()}) == len(users)
)


@pytest.mark.timeout(300)
@hypothesis_settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(existing=EXISTING, rows=LISTS, chunk=st.integers(1, 6))
def test_an_import_is_its_lines_one_after_the_other(
    database_url: str, existing: Users, rows: list[tuple[UserId | None, str, int]], chunk: int
) -> None:
    """
    However it is cut, an import ends as if each line had been judged alone; a dry run foretells it and changes
    nothing; who stays the same keeps the version; and once more changes nothing if nothing was refused.
    """
    lines = [Line(number, *row) for number, row in enumerate(rows, start=2)]
    store(database_url, existing)
    before = stored(database_url)
    users, totals = expected(existing, lines)

    assert totals == run(database_url, lines, chunk=chunk, dry_run=True)
    assert before == stored(database_url)

    assert totals == run(database_url, lines, chunk=chunk)
    after = stored(database_url)
    named = {user_id: user for user_id, user in users.items() if not user_id.startswith("new-")}
    assert named == {user_id: user[:2] for user_id, user in after.items() if user_id in named}
    assert sorted(users.values()) == sorted(user[:2] for user in after.values())
    for user_id, user in before.items():
        assert (after[user_id] == user) == (after[user_id][:2] == user[:2])

    if not totals.refused:
        assert (0, 0, len(lines), frozenset()) == run(database_url, lines)
        assert after == stored(database_url)


def test_refusals_name_the_other_line_or_user(database_url: str) -> None:
    """A reason says which earlier line, in whatever chunk, or which user stands in the way."""
    store(database_url, {"a": ("ann", 1500)})
    lines = [
        Line(2, UserId("b"), "bob", 1500),
        Line(3, UserId("b"), "bobby", 1600),
        Line(4, None, "Bob", 1600),
        Line(5, UserId("c"), "ANN", 1600),
    ]

    assert {
        3: "line 2 is about the same user",
        4: "line 2 is about the same user",
        5: "the username belongs to the user a",
    } == reasons(database_url, lines)
    assert {"a": ("ann", 1500), "b": ("bob", 1500)} == {key: user[:2] for key, user in stored(database_url).items()}


def test_a_chain_of_names_is_taken_whatever_the_order_of_its_lines(database_url: str) -> None:
    """Each user takes the name that the next one gives up, in one import, in chunks of any size."""
    chain = [Line(number, UserId(f"u{number}"), f"name-{number + 1}", 1500) for number in range(50, 0, -1)]
    users = {f"u{number}": (f"name-{number}", 1500) for number in range(1, 51)}
    for lines in (chain, chain[::-1]):
        store(database_url, users)

        assert Totals(0, 50, 0, frozenset()) == run(database_url, lines, chunk=7, dry_run=True)
        assert Totals(0, 50, 0, frozenset()) == run(database_url, lines, chunk=7)
        assert {f"name-{number}" for number in range(2, 52)} == {user[0] for user in stored(database_url).values()}


@pytest.mark.parametrize("size", [2, 3, 50])
def test_users_swap_their_names_in_one_import(database_url: str, size: int) -> None:
    """Whatever stands between the lines; a second import of the list changes nothing."""
    store(database_url, {f"u{number}": (f"name-{number}", 1500) for number in range(size)})
    lines = [Line(number, UserId(f"u{number}"), f"Name-{(number + 1) % size}", 1600) for number in range(size)]

    assert Totals(0, size, 0, frozenset()) == run(database_url, lines, chunk=1, dry_run=True)
    assert Totals(0, size, 0, frozenset()) == run(database_url, lines, chunk=1)
    after = stored(database_url)
    assert {f"u{number}": (f"Name-{(number + 1) % size}", 1600) for number in range(size)} == {
        user_id: user[:2] for user_id, user in after.items()
    }
    assert Totals(0, 0, size, frozenset()) == run(database_url, lines)
    assert after == stored(database_url)


def test_deferred_lines_are_taken_in_several_transactions(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long chain is cut from its end; a cycle is not cut, because only together do its names become free."""
    monkeypatch.setattr("service.ranking.bulk.CHUNK_LINES", 4)
    store(database_url, {f"u{number}": (f"name-{number}", 1500) for number in range(30)})
    chain = [Line(number, UserId(f"u{number}"), f"name-{number + 1}", 1500) for number in range(12)]
    chain.append(Line(12, UserId("u12"), "free", 1500))
    cycle = [
        Line(number, UserId(f"u{number}"), f"name-{(number - 13 + 1) % 10 + 13}", 1500) for number in range(13, 23)
    ]
    kept = [Line(23, UserId("new"), "name-29", 1500), Line(24, UserId("u24"), "name-23", 1500)]

    for dry_run in (True, False):
        totals = run(database_url, [*chain, *cycle, *kept], chunk=4, dry_run=dry_run)
        assert Totals(0, 23, 0, frozenset({23, 24})) == totals


def test_more_deferred_lines_than_are_kept_are_refused(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.ranking.deferred.MOST", 1)
    store(database_url, {"a": ("ann", 1500), "b": ("bob", 1500)})
    lines = [Line(2, UserId("a"), "bob", 1500), Line(3, UserId("b"), "ann", 1500)]

    assert {3: "the username belongs to the user a", 2: "the username belongs to the user b"} == reasons(
        database_url, lines
    )


def test_a_dry_run_needs_no_schema(database_url: str) -> None:
    """Over a database that was never migrated a dry run says that everybody would be new."""
    with psycopg.connect(database_url) as connection:
        connection.execute("DROP TABLE users")
    lines = [Line(2, None, "ann", 1500), Line(3, UserId("b"), "bob", 1500), Line(4, None, "Ann", 1600)]

    assert Totals(2, 0, 0, frozenset({4})) == run(database_url, lines, dry_run=True)


@pytest.mark.parametrize("digest", [None, b"the digest of a list"])
def test_every_statement_finds_its_rows_by_index(database_url: str, digest: bytes | None) -> None:
    """No statement of an import reads the whole table, not even while the planner knows nothing about it."""
    store(database_url, {str(number): (f"name-{number}", 1500) for number in range(1000)})
    ids, names = [str(number) for number in range(500)], [f"name-{number}" for number in range(500)]
    chunk: dict[str, dict[str, object]] = {
        "known": {"ids": ids, "names": names, "taken_ids": ids, "taken_names": names},
        "hold": {"ids": [str(number) for number in range(500)]},
        "rate": {"ids": [str(number) for number in range(500)], "ratings": [1600] * 500},
    }
    with open_intake(database_url, digest=digest) as intake:
        for name, parameters in chunk.items():
            plan = intake._connection.execute("EXPLAIN " + _QUERIES[name], parameters).fetchall()

            assert not [line for (line,) in plan if "Seq Scan" in line]


def test_who_was_given_the_rating_meanwhile_is_not_touched(database_url: str) -> None:
    """A change that somebody else made between the look and the write is not made again: the version stays."""
    store(database_url, {"a": ("ann", 1500), "b": ("bob", 1500)})
    before = stored(database_url)
    plan = Plan(rated=[NewUser(UserId("a"), "ann", 1500)], renamed=[NewUser(UserId("b"), "bob", 1500)])
    with open_intake(database_url) as intake, intake.transaction():
        assert 0 == intake.write(plan)

    assert before == stored(database_url)
