"""Every operation of the product, one after the other, and whether what it said is what a clean session says in SQL."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import psycopg
import pytest

from service.app import opened
from service.errors import PreconditionFailed, UsernameTaken
from service.model import NewRating, NewUser, UserId
from service.order import ranked
from service.ranking.bulk import Line, take
from service.ranking.deferred import Deferred
from service.ranking.drift import Report
from service.ranking.rating_history import record
from service.settings import Settings
from service.store.bulk import open_intake
from service.store.export import open_snapshot
from service.store.feed import Feed
from service.store.migrate import migrate
from service.store.rating_history import RatingHistory
from tests.ranking.equality import assert_mirror_equals_ledger, ready
from tests.ranking.reconciling import reconcile

NAMES = ("ab-C", "AB.d", "Ab_", "abZ", "aB0", "zz-")
"""By bytes in another order than by most languages."""

Told = dict[str, Any]


async def carry_out(settings: Settings) -> Told:
    """Migrate, create, rate, rename, delete, search, look back, import, reconcile and export; returns what was said."""
    migrate(settings.database_url)
    ids = [UserId(f"u{number}") for number in range(len(NAMES))]
    async with opened(settings) as ladder:
        created = await asyncio.gather(
            *(ladder.create(NewUser(i, name, 1500 + random.randrange(3))) for i, name in zip(ids, NAMES, strict=True))
        )
        with pytest.raises(UsernameTaken):
            await ladder.create(NewUser(UserId("other"), NAMES[0].swapcase(), 1500))
        await asyncio.gather(*(ladder.rate(ids[0], 7, relative=True) for _ in range(3)))
        await ladder.rate(ids[1], 1700, wanted=(created[1].user.version,))
        with pytest.raises(PreconditionFailed):
            await ladder.rate(ids[1], 1800, wanted=(created[1].user.version,))
        await ladder.rate_all([NewRating(ids[2], 1600), NewRating(ids[3], 1601)])
        await ladder.rename(ids[4], "Ab-new")
        await ladder.remove(ids[5])
        with open_intake(settings.database_url, digest=b"0" * 16) as intake:
            intake.begin()
            lines = [Line(1, None, "Ab-imported", 1650), Line(2, ids[3], NAMES[3], 1602)]
            assert {} == take(intake, lines, deferred=Deferred()).refused
            intake.forget()
        await ready(ladder)
        async with Feed(settings.database_url) as feed:
            await record(RatingHistory(feed), Report(), source=await feed.source())
        report = await reconcile(settings)
        assert (0, 0) == (report.remaining, report.miscount)
        found = await ladder.search("aB", limit=50)
        days = {user_id: await ladder.past(user_id, days=2) for user_id in ids[:5]}
    with open_snapshot(settings.database_url) as snapshot:
        exported = [row for rows in snapshot.rows() for row in rows]
    assert created[0].user.rating + 21 == next(row.rating for row in exported if row.id == ids[0])
    return {
        "search": [answer.value.user for answer in found],
        "rank": {answer.value.user.id: answer.value.standing for answer in found},
        "days": days,
        "export": exported,
    }


async def assert_equal_to_sql(settings: Settings, told: Told) -> None:
    """Compare what was said with what a session of the server's own settings reads now, and empty the tables."""
    with psycopg.connect(settings.database_url, autocommit=True) as session:
        rows = session.execute(
            "SELECT id, username, rating, version, created_at, updated_at FROM public.users"
            " WHERE lower(username) LIKE 'ab%' ORDER BY lower(username)"
        ).fetchall()
        board = session.execute(
            "SELECT id, username, rating FROM public.users ORDER BY rating DESC, username"
        ).fetchall()
        past = session.execute("SELECT user_id, rating, rank, position FROM public.rating_history").fetchall()
        left_behind = session.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ).fetchone()

    assert rows == [
        (user.id, user.username, user.rating, user.version, user.created_at, user.updated_at) for user in told["search"]
    ]
    assert told["export"] == ranked([(UserId(row[0]), *row[1:]) for row in board], position=1, rank=1)
    standings = {row.id: (row.rank, row.position) for row in told["export"]}
    assert {i: (at.rank, at.position) for i, at in told["rank"].items()} == {i: standings[i] for i in told["rank"]}
    said = {(i, day.rating, day.rank, day.position) for i, days in told["days"].items() for day in days}
    assert said == {row for row in past if row[0] in told["days"]}
    assert len(said) == len(told["days"])
    assert (0,) == left_behind
    await assert_mirror_equals_ledger(settings)


def empty(settings: Settings) -> None:
    """Remove what an earlier turn left."""
    with psycopg.connect(settings.database_url, autocommit=True) as session:
        session.execute("DELETE FROM public.users")
        session.execute("DELETE FROM public.rating_snapshots")
