"""What the tests of imports share: running one, and looking at what it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg

from service.ranking.bulk import Line, take, take_deferred
from service.ranking.deferred import Deferred
from service.store.bulk import open_intake

Users = dict[str, tuple[str, int]]


class Totals(NamedTuple):
    """What an import reported, over all its chunks."""

    created: int
    updated: int
    unchanged: int
    refused: frozenset[int]


def run(database_url: str, lines: Sequence[Line], *, chunk: int = 1000, dry_run: bool = False) -> Totals:
    """Import lines, `chunk` of them in each transaction."""
    deferred, outcomes = Deferred(), []
    with open_intake(database_url, dry_run=dry_run) as intake:
        for start in range(0, len(lines), chunk):
            outcomes.append(take(intake, lines[start : start + chunk], deferred=deferred))
            deferred = outcomes[-1].deferred
        while deferred:
            outcomes.append(take_deferred(intake, deferred))
            deferred = outcomes[-1].deferred
    return Totals(
        sum(outcome.created for outcome in outcomes),
        sum(outcome.updated for outcome in outcomes),
        sum(outcome.unchanged for outcome in outcomes),
        frozenset(number for outcome in outcomes for number in outcome.refused),
    )


def stored(database_url: str) -> dict[str, tuple[str, int, int]]:
    """Every user's name, rating and version, by id."""
    with psycopg.connect(database_url) as connection:
        return {row[0]: row[1:] for row in connection.execute("SELECT id, username, rating, version FROM users")}


def store(database_url: str, users: Users) -> None:
    """Make these, and only these, the users of a database."""
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM users")
        connection.cursor().executemany(
            "INSERT INTO users (id, username, rating) VALUES (%s, %s, %s)",
            [(user_id, name, rating) for user_id, (name, rating) in users.items()],
        )


def reasons(database_url: str, lines: Sequence[Line]) -> dict[int, str]:
    """Import lines in one transaction, and what waited for their end in another; returns why each refused one was."""
    with open_intake(database_url) as intake:
        outcome = take(intake, lines, deferred=Deferred())
        return outcome.refused | take_deferred(intake, outcome.deferred).refused
