"""What goes wrong after a commit is never answered as if nothing had happened, and nothing is carried out twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from service.errors import LadderError, OutcomeUnknown, StoreBug
from service.model import NewRating, NewUser, OnceOnly, UserId
from service.ranking.guarded import GuardedMirror
from service.ranking.ladder import Ladder
from service.settings import Settings
from service.store.ledger import Ledger
from service.store.postgres import Postgres, borrowed

IDS = [UserId(f"u{number}") for number in range(4)]


def stored(settings: Settings) -> dict[str, int]:
    """Every user's rating by id."""
    with psycopg.connect(settings.database_url) as session:
        return dict(session.execute("SELECT id, rating FROM users").fetchall())


async def garble(ladder: Ladder) -> None:
    """Have the connections that write return times that cannot be read, as a shared session may."""
    pool = ladder._ledger._writes
    connections = [await pool.getconn() for _ in range(pool.max_size)]
    for connection in connections:
        await connection.execute("SET datestyle = 'German'")
        await pool.putconn(connection)


async def populate(ladder: Ladder) -> None:
    """Create the users, at 1500."""
    await asyncio.gather(*(ladder.create(NewUser(user_id, f"name-{user_id}", 1500)) for user_id in IDS))


async def test_a_delta_whose_result_cannot_be_read_counts_once(ladder: Ladder, settings: Settings) -> None:
    """Its whole batch is `OutcomeUnknown` instead of being carried out again."""
    await populate(ladder)
    await garble(ladder)
    outcomes = await asyncio.gather(*(ladder.rate(i, 5, relative=True) for i in IDS), return_exceptions=True)

    assert [OutcomeUnknown] * len(IDS) == [type(outcome) for outcome in outcomes]
    assert dict.fromkeys(IDS, 1505) == stored(settings)


async def test_a_creation_whose_result_cannot_be_read_is_unknown(ladder: Ladder, settings: Settings) -> None:
    """Carried out again it would be `IdTaken`, by itself."""
    await garble(ladder)
    users = [NewUser(user_id, f"name-{user_id}", 1500) for user_id in IDS]
    outcomes = await asyncio.gather(*(ladder.create(user) for user in users), return_exceptions=True)

    assert [OutcomeUnknown] * len(IDS) == [type(outcome) for outcome in outcomes]
    assert set(IDS) == set(stored(settings))


async def test_a_write_that_keeps_its_key_is_undone(ladder: Ladder, settings: Settings) -> None:
    """It is read inside its transaction, so that nothing of it is left, and a repetition is carried out."""
    await populate(ladder)
    await garble(ladder)
    once = OnceOnly("key", b"request")
    with pytest.raises(LadderError):
        await ladder.rate(IDS[0], 5, relative=True, once=once)
    assert 1500 == stored(settings)[IDS[0]]
    for _ in range(5):
        try:
            written = await ladder.rate(IDS[0], 5, relative=True, once=once)
        except LadderError:
            continue
        assert 1505 == written.user.rating

    assert 1505 == stored(settings)[IDS[0]]


@pytest.mark.parametrize("place", ["put", "carry over"])
async def test_a_defect_after_the_commit_repeats_nothing(
    ladder: Ladder, settings: Settings, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Wherever it is: a batch that raised anything but an error of ours was carried out item by item."""
    await populate(ladder)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(place)

    if place == "put":
        monkeypatch.setattr(GuardedMirror, "put", broken)
    else:
        monkeypatch.setattr(ladder, "_carry_over", broken)
    outcomes = await asyncio.gather(*(ladder.rate(i, 5, relative=True) for i in IDS), return_exceptions=True)

    assert [OutcomeUnknown] * len(IDS) == [type(outcome) for outcome in outcomes]
    assert dict.fromkeys(IDS, 1505) == stored(settings)


async def test_many_ratings_are_unknown_too(ladder: Ladder, settings: Settings) -> None:
    """Those that are asked for together have a transaction of their own."""
    await populate(ladder)
    await garble(ladder)
    with pytest.raises(OutcomeUnknown):
        await ladder.rate_all([NewRating(user_id, 5, relative=True) for user_id in IDS])

    assert dict.fromkeys(IDS, 1505) == stored(settings)


async def test_a_clash_that_cannot_be_explained_leaves_the_others_alone(
    settings: Settings, ladder: Ladder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was created in the same batch is told so, whatever goes wrong while the reason is looked for."""
    await ladder.create(NewUser(IDS[0], "name-0", 1500))

    async def broken(*_: Any) -> Any:
        raise ValueError

    monkeypatch.setattr("service.store.writing.clashes", broken)
    users: Sequence[NewUser] = [NewUser(IDS[1], "name-1", 1500), NewUser(IDS[2], "NAME-0", 1500)]
    created, refused = await Ledger.create(ladder._ledger, users)

    assert not isinstance(created, LadderError)
    assert isinstance(refused, LadderError)
    assert {IDS[0], IDS[1]} == set(stored(settings))


async def test_a_read_whose_result_cannot_be_read_is_a_defect_once(ladder: Ladder) -> None:
    """The connection goes with it, and the next answers."""
    await populate(ladder)
    pool = ladder._ledger._reads
    async with borrowed(pool) as connection:
        await connection.execute("SET datestyle = 'German'")
    with pytest.raises(StoreBug):
        await ladder._ledger.users(IDS)

    assert set(IDS) == set(await ladder._ledger.users(IDS))


async def test_a_connection_whose_result_could_not_be_read_is_closed(settings: Settings) -> None:
    """The next one has our settings again."""
    postgres = Postgres(settings.database_url, write_connections=1)
    await postgres.open()
    try:
        ledger = Ledger(postgres)
        async with borrowed(postgres.writes) as connection:
            await connection.execute("SET datestyle = 'German'")
        with pytest.raises(OutcomeUnknown):
            await ledger.create([NewUser(IDS[0], "name-0", 1500)])
        (rated,) = await ledger.rate([NewRating(IDS[0], 1600)])

        assert not isinstance(rated, LadderError)
    finally:
        await postgres.close()
