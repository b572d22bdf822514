"""The made-up users of a first look."""

from __future__ import annotations

import statistics
from collections import Counter

import psycopg
import pytest

from service.demo import fill, made_up
from service.model import USERNAME
from tests.store.imports import store, stored


def test_an_empty_database_is_filled(database_url: str) -> None:
    """As many users as asked for, with ids, versions and ratings of their own."""
    fill(database_url, 12_000)
    users = stored(database_url)

    assert 12_000 == len(users) == len({version for _, _, version in users.values()})
    assert {(line.username, line.rating) for line in made_up(12_000)} == {user[:2] for user in users.values()}


@pytest.mark.parametrize("count", [0, 100])
def test_users_that_are_there_are_left_alone(database_url: str, count: int) -> None:
    """Nothing is made up in a database that has a user, nor when no users are asked for."""
    store(database_url, {"a": ("ann", 1500)} if count else {})
    before = stored(database_url)
    fill(database_url, count)

    assert before == stored(database_url)


def test_half_a_database_of_users_is_no_reason_to_fail(database_url: str) -> None:
    """Two starts at once may both find nobody: the second finds the first one's users, and changes none of them."""
    with psycopg.connect(database_url) as connection:
        connection.cursor().executemany(
            "INSERT INTO users (id, username, rating) VALUES (%s, %s, %s)",
            [(str(line.number), line.username, line.rating) for line in made_up(10)],
        )
    before = stored(database_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.store.bulk.Intake.is_empty", lambda _: True)
        fill(database_url, 20)
    after = stored(database_url)

    assert 20 == len(after)
    assert before.items() <= after.items()


def test_made_up_users_look_like_a_ladder() -> None:
    """Names are valid, unlike in more than case, and varied; ratings are a bell around 1500 with ties and a top."""
    users = list(made_up(200_000))
    names = [user.username for user in users]
    ratings = [user.rating for user in users]
    kinds = Counter(
        "digits" if name[-1].isdigit() else next((mark for mark in "._-" if mark in name), "word") for name in names
    )

    assert all(USERNAME.match(name) for name in names)
    assert len(names) == len({name.lower() for name in names})
    assert {"digits", ".", "_", "-", "word"} == set(kinds)
    assert min(kinds.values()) > 10_000
    assert abs(statistics.mean(ratings) - 1500) < 5
    assert abs(statistics.stdev(ratings) - 300) < 5
    assert users == list(made_up(200_000))
