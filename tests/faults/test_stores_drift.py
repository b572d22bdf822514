"""Damage that leaves every count as it was is found and repaired by the full reconciliation, run as cron runs it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from service.model import UserId
from service.order import encode, member
from tests.api.serving import wait_until

from .clients import measured
from .stage import Stage, stage

BOARD, USERS = "{ladder}:board", "{ladder}:users"
ANSWERS = 150
SEVEN = member("name-7", UserId("user7"))


@pytest.fixture(scope="module")
def running() -> Iterator[Stage]:
    """One service for all of them: each leaves it as it found it, or fails."""
    with stage() as made:
        yield made


COMMANDS: dict[str, tuple[list[tuple[object, ...]], str, int]] = {
    "a changed score": ([("ZADD", BOARD, "XX", 4999.5, SEVEN)], "corrupt", 1),
    "an older version": ([("HSET", USERS, "user7", f"1|{encode('name-7')}")], "stale", 1),
    "a ghost for a user": ([("ZREM", BOARD, SEVEN), ("ZADD", BOARD, 1500, member("ghost", UserId("ghost")))], "", 2),
}

STATEMENTS = {
    "a bypassed update": ("UPDATE users SET rating = CASE rating WHEN 4000 THEN 4001 ELSE 4000 END WHERE id = %s", 1),
    "a bypassed deletion": ("DELETE FROM users WHERE id = %s", 1),
    "a bypassed creation": (
        "INSERT INTO users (id, username, rating, version) VALUES ('new-' || %s, 'new-one', 4000, 1)",
        1,
    ),
}


def repaired(at: Stage, drift: str, count: int, name: str) -> None:
    """The first run finds exactly the damage and repairs it, the second one finds nothing."""
    assert not at.is_equal()
    code, report = at.reconcile()
    assert 0 == code, report
    drifts = ("missing", "stale", "ahead", "orphan", "corrupt", "ghost")
    found = {kind: report[kind] for kind in drifts if report[kind]}
    assert count == sum(found.values()) == report["repaired"], report
    assert not drift or {drift: count} == found
    assert at.is_equal()
    measured(f"{name}: {found}, {report['duration_ms']} ms")
    code, report = at.reconcile("--fail-on-drift")
    assert 0 == code, report
    assert at.serves()


@pytest.mark.parametrize("name", COMMANDS)
def test_keys_edited_by_hand(running: Stage, name: str) -> None:
    commands, drift, count = COMMANDS[name]
    assert None not in running.command_all(commands)
    repaired(running, drift, count, name)


@pytest.mark.parametrize("name", STATEMENTS)
def test_sql_past_the_triggers(running: Stage, name: str) -> None:
    statement, count = STATEMENTS[name]
    with psycopg.connect(running.settings.database_url) as connection:
        connection.execute("SET session_replication_role = replica")
        assert 1 == connection.execute(statement, ["user9"]).rowcount
    repaired(running, "", count, name)
    if name == "a bypassed deletion":
        with psycopg.connect(running.settings.database_url) as connection:
            connection.execute("INSERT INTO users (id, username, rating) VALUES ('user9', 'name-9', 1500)")
    elif name == "a bypassed creation":
        running.service.execute("DELETE FROM users WHERE id = 'new-user9'")
    running.heal()


def loaded_without_a_wrong_rank(at: Stage, answers: int, seconds: float) -> None:
    """Nobody writes, so from the emptying on there is one right answer to each question, or a refusal."""
    with at.busy(writing=False) as clients:
        wait_until(lambda: clients.answers >= ANSWERS)
        clients.seen.clear()
        at.redis.flush()
        took = at.heal(seconds)
        wait_until(lambda: clients.answers >= answers, seconds=seconds)
    measured(
        f"{clients.answers} answers, {dict(clients.seen)}, slowest {clients.slowest_ms} ms; exact after {took:.1f} s"
    )
    assert {"postgres", "histogram"} & clients.seen.keys()
    assert clients.seen["redis"]
    assert [] == at.service.defects()


def test_no_rank_is_wrong_during_a_load(running: Stage) -> None:
    loaded_without_a_wrong_rank(running, 500, 30)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_rank_is_wrong_during_the_load_of_a_million() -> None:
    with stage(1_000_000) as big:
        loaded_without_a_wrong_rank(big, 5000, 600)
