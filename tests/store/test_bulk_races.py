"""An import beside other writers, and without its connection."""

from __future__ import annotations

import asyncio
import random
import threading

import msgspec
import psycopg
import pytest

from service.errors import Unavailable
from service.model import NewUser, UserId, new_user_id
from service.ranking import bulk
from service.ranking.bulk import Line, take
from service.ranking.deferred import Deferred
from service.ranking.ladder import Ladder
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store.bulk import Intake, Known, open_intake
from service.store.mirror import Mirror
from tests.embedded.processes import wait_until
from tests.ranking.equality import assert_mirror_equals_ledger, ready
from tests.store.imports import reasons, run, store, stored


def test_a_lost_connection_leaves_nothing_of_the_chunk(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that is ended before the commit raises `Unavailable`; what was committed before stays."""
    write = Intake.write

    def write_and_lose(self: Intake, *arguments: object) -> int:
        changed = write(self, *arguments)  # type: ignore[arg-type]
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (self._connection.info.backend_pid,))
            wait_until(lambda: not _sessions(other))
        self._connection.execute("SELECT 1")
        return changed

    with open_intake(database_url) as intake:
        take(intake, [Line(2, UserId("a"), "ann", 1500)], deferred=Deferred())
        monkeypatch.setattr(Intake, "write", write_and_lose)
        with pytest.raises(Unavailable):
            take(intake, [Line(3, UserId("b"), "bob", 1500)], deferred=Deferred())

    assert ["a"] == list(stored(database_url))


def _sessions(connection: psycopg.Connection, *, waiting: bool = False) -> int:
    """How many imports are connected, or how many of them wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ladder' AND datname = current_database()"
    (count,) = connection.execute(query + " AND wait_event_type = 'Lock'" * waiting).fetchone() or (0,)
    return int(count)


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_name_that_is_just_being_taken_is_waited_for(database_url: str, *, is_committed: bool) -> None:
    """Another's uncommitted user of the same name is waited for, then judged: refused, or created if it is gone."""
    found: dict[int, str] = {}
    importing = threading.Thread(
        target=lambda: found.update(reasons(database_url, [Line(2, UserId("mine"), "Bob", 1500)]))
    )
    with (
        psycopg.connect(database_url) as other,
        psycopg.connect(database_url, autocommit=True) as watching,
    ):
        other.execute("INSERT INTO users (id, username, rating) VALUES ('theirs', 'bob', 1500)")
        importing.start()
        wait_until(lambda: _sessions(watching, waiting=True))
        other.commit() if is_committed else other.rollback()
        importing.join()

    assert ({2: "the username belongs to the user theirs"} if is_committed else {}) == found
    assert ["theirs" if is_committed else "mine"] == list(stored(database_url))


def test_an_import_that_is_always_too_late_gives_up(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If others are faster every time, the import ends with `Unavailable` instead of trying for ever."""
    store(database_url, {"a": ("ann", 1500)})
    monkeypatch.setattr(Intake, "known", lambda *_: Known())

    with pytest.raises(Unavailable):
        run(database_url, [Line(2, UserId("a"), "ann", 1600)])
    assert 1500 == stored(database_url)["a"][1]


async def test_two_imports_in_opposite_order_do_not_deadlock(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imports that write the same users at once, one backwards, both end, at the first try."""
    monkeypatch.setattr(bulk, "_TRIES", 1)
    numbers = range(1000)
    store(database_url, {f"u{number}": (f"name-{number}", 1000) for number in numbers})
    forwards, backwards = (
        [Line(place, UserId(f"u{number}"), f"name-{number}", rating) for place, number in enumerate(order, start=2)]
        for order, rating in ((numbers, 2000), (reversed(numbers), 3000))
    )
    for _ in range(5):
        await asyncio.gather(*(asyncio.to_thread(run, database_url, lines) for lines in (forwards, backwards)))

        assert len({rating for _, rating, _ in stored(database_url).values()}) == 1


async def test_an_import_among_requests_leaves_an_exact_mirror(
    settings: Settings, ladder: Ladder, mirror: Mirror
) -> None:
    """While users are rated, and created under names of the list, an import ends and the mirror equals SQL."""
    numbers = random.Random(7)
    lines = [
        Line(number + 2, UserId(f"u{number}") if number % 3 else None, f"name-{number}", numbers.randint(1490, 1510))
        for number in range(600)
    ]
    await asyncio.to_thread(run, settings.database_url, lines[:300])
    await ready(ladder)
    ids = [UserId(user_id) for user_id in stored(settings.database_url)]
    importing = asyncio.create_task(
        asyncio.to_thread(
            run, settings.database_url, [msgspec.structs.replace(line, rating=1520) for line in lines], chunk=50
        )
    )
    while not importing.done():
        await asyncio.gather(*(ladder.rate(numbers.choice(ids), numbers.randint(1490, 1510)) for _ in range(50)))
        await asyncio.gather(
            *(ladder.create(NewUser(new_user_id(), numbers.choice(lines[300:]).username, 1500)) for _ in range(5)),
            return_exceptions=True,
        )
    totals = await importing
    await asyncio.wait_for(Tailer(settings.database_url, mirror).catch_up(), 20)

    assert 600 == totals.created + totals.updated + totals.unchanged + len(totals.refused)
    await assert_mirror_equals_ledger(settings)
