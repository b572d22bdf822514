"""Compaction: both stores forget deleted users, and nothing brings one back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import psycopg
import pytest
import redis

from service import failpoints
from service.errors import Behind, Unavailable
from service.model import Rated, Removed, Token, User, UserId, Version, Window
from service.ranking import compaction
from service.ranking.compaction import compact
from service.ranking.drift import Report
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store.feed import Feed
from service.store.inspection import Inspection
from service.store.mirror import Mirror, Refused
from service.store.tombstones import Tombstones
from tests.ranking.equality import assert_mirror_equals_ledger
from tests.ranking.reconciling import BOARD, STATE, USERS, Session, insert
from tests.ranking.test_reconcile_script import report, run

KEYS = (BOARD, USERS, STATE)


class Stage:
    """A mirror with its tailer, and compactions of it."""

    def __init__(self, settings: Settings, mirror: Mirror, ledger: Session, board: redis.Redis) -> None:
        self.settings, self.mirror, self.ledger, self.board = settings, mirror, ledger, board
        self.catch_up = Tailer(settings.database_url, mirror).catch_up

    async def compact(self, *, settle_seconds: float = 10) -> Report:
        """Compact, whatever there is."""
        outcome = Report()
        async with Feed(self.settings.database_url) as feed:
            source = await feed.source()
            await compact(
                Tombstones(feed), self.mirror, Inspection(self.mirror._client), outcome,
                source=source, catch_up=self.catch_up, settle_seconds=settle_seconds,
            )  # fmt: skip
        return outcome

    def saved(self) -> dict[str, bytes]:
        """The board as it is now."""
        return {key: self.board.dump(key) or b"" for key in KEYS}

    def fall_back(self, saved: dict[str, bytes]) -> None:
        """Have Redis as it was then."""
        with self.board.pipeline() as pipe:
            for key, value in saved.items():
                pipe.restore(key, 0, value, replace=True)
            pipe.execute()

    def remembered(self) -> tuple[int, int]:
        """How many deleted users both stores know."""
        ((tombstones,),) = self.ledger.execute("SELECT count(*) FROM user_tombstones").fetchall()
        return int(tombstones), int(self.board.hlen(USERS)) - int(self.board.zcard(BOARD))


@pytest.fixture
async def stage(
    settings: Settings, mirror: Mirror, ledger: Session, board: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """Ten users on the board, and compactions of however few."""
    monkeypatch.setattr(compaction, "MANY", 0)
    monkeypatch.setattr(compaction, "SHARE", 0)
    made = Stage(settings, mirror, ledger, board)
    insert(ledger, 10)
    await made.catch_up()
    yield made
    await made.catch_up()
    await assert_mirror_equals_ledger(settings)


async def test_twenty_thousand_deleted_users_are_forgotten(
    settings: Settings, mirror: Mirror, ledger: Session, board: redis.Redis
) -> None:
    """By both stores; then a late put is refused, and a Redis that falls back behind it is loaded anew."""
    stage = Stage(settings, mirror, ledger, board)
    insert(ledger, 20_100)
    await stage.catch_up()
    before_deletion = stage.saved()
    ledger.execute("DELETE FROM users WHERE substr(id, 5)::int > 100")
    await stage.catch_up()
    assert (20_000, 20_000) == stage.remembered()
    before_compaction = stage.saved()
    told = report(run(settings, "--json"))

    assert (0, 0) == (told["exit"], told["tombstones"])
    assert (20_000, 20_000) == (told["tombstones_removed"], told["mirror_tombstones_removed"])
    assert (0, 0) == stage.remembered()
    await assert_mirror_equals_ledger(settings)
    for saved in (before_compaction, before_deletion):
        stage.fall_back(saved)
        await stage.catch_up()
        await assert_mirror_equals_ledger(settings)


def user(user_id: str, version: int) -> User:
    """A user as a writer knows them."""
    now = datetime.now(UTC)
    return User(UserId(user_id), f"{user_id}-x", 1500, Version(version), now, now)


async def test_a_late_put_is_refused_and_the_token_of_the_deletion_counts(stage: Stage) -> None:
    """Of a user that neither store remembers; a user who is created again is there."""
    ((version,),) = stage.ledger.execute("SELECT version FROM users WHERE id = 'user3'").fetchall()
    stage.ledger.execute("DELETE FROM users WHERE id = 'user3'")
    ((tombstone,),) = stage.ledger.execute("SELECT version FROM user_tombstones").fetchall()
    outcome = await stage.compact()
    assert (1, 1, 0, 0) == (
        outcome.tombstones_removed, outcome.mirror_tombstones_removed, outcome.tombstones, outcome.mirror_tombstones
    )  # fmt: skip
    assert (0, 0) == stage.remembered()

    state = await stage.mirror.state()
    assert state is not None
    _, placed = await stage.mirror.put([Rated(user("user3", version), None)], source=state.source)
    assert "pending" == placed[0].outcome
    assert not stage.board.hexists(USERS, "user3")
    window = Window(5, 0, None, (Token(UserId("user3"), Version(tombstone)),))
    newer = Window(5, 0, None, (Token(UserId("user3"), Version(tombstone + 1)),))
    found, behind = await stage.mirror.pages([window, newer], source=state.source)
    assert not isinstance(found, Behind)
    assert isinstance(behind, Behind)
    stage.ledger.execute("INSERT INTO users (id, username, rating) VALUES ('user3', 'again', 1500)")


async def test_a_transaction_that_is_open_postpones_it(stage: Stage) -> None:
    """It may have drawn a version that the mirror would take for a deleted user's."""
    stage.ledger.execute("DELETE FROM users WHERE id = 'user3'")
    with psycopg.connect(stage.settings.database_url) as slow:
        slow.execute("INSERT INTO users (id, username, rating) VALUES ('late', 'late', 1500)")
        outcome = await stage.compact(settle_seconds=0.5)
        assert (0, 1) == (outcome.tombstones_removed, outcome.tombstones)
        assert (1, 1) == stage.remembered()
        slow.commit()
    assert 1 == (await stage.compact()).tombstones_removed


@pytest.fixture
def disarmed() -> Iterator[None]:
    """No failpoint after the test."""
    yield
    failpoints.arm({})


@pytest.mark.usefixtures("disarmed")
@pytest.mark.parametrize("point", ["compaction_after_begin", "compaction_after_announcement"])
async def test_one_that_was_killed_is_done_by_the_next(stage: Stage, point: str) -> None:
    """What it had done by then is right."""
    stage.ledger.execute("DELETE FROM users WHERE id = 'user3'")
    failpoints.arm({"LADDER_TESTING": "true", "LADDER_FAILPOINTS": f"{point}=raise"})
    with pytest.raises(Unavailable):
        await stage.compact()
    failpoints.arm({})
    await stage.catch_up()
    await assert_mirror_equals_ledger(stage.settings)
    await stage.compact()

    assert (0, 0) == stage.remembered()


async def test_few_and_young_ones_stay(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until one is old."""
    monkeypatch.setattr(compaction, "MANY", 10)
    stage.ledger.execute("DELETE FROM users WHERE id = 'user3'")
    await stage.catch_up()
    outcome = await stage.compact()
    assert (1, 1, 0) == (outcome.tombstones, outcome.mirror_tombstones, outcome.tombstones_removed)
    stage.ledger.execute("UPDATE user_tombstones SET deleted_at = now() - interval '15 days'")

    assert 1 == (await stage.compact()).tombstones_removed
    assert (0, 0) == stage.remembered()


async def test_tombstones_removed_in_the_middle_of_a_cycle_refuse_its_changes(stage: Stage) -> None:
    """Which were read from a checkpoint that could be followed when the cycle began."""
    state = await stage.mirror.state()
    assert state is not None
    async with Feed(stage.settings.database_url) as feed:
        stage.ledger.execute("DELETE FROM users WHERE id = 'user3'")
        stage.ledger.execute(
            "UPDATE history SET purged_name = name, purged_xact = pg_snapshot_xmax(pg_current_snapshot())"
        )
        stage.ledger.execute("DELETE FROM user_tombstones")
        with pytest.raises(Refused):
            await feed.changes(state.checkpoint, limit=10)


async def test_what_another_history_purged_is_nothing_to_this_one(stage: Stage) -> None:
    """Its transactions may be far ahead, as after the restore of a dump."""
    stage.ledger.execute("UPDATE history SET purged_name = 'other', purged_xact = '9000000000'")
    epoch = stage.board.hget(STATE, "epoch")
    await stage.catch_up()

    assert epoch == stage.board.hget(STATE, "epoch")


async def test_the_board_is_read_and_written_all_the_time(stage: Stage) -> None:
    """While users are created and deleted, compaction after compaction."""
    over = asyncio.Event()
    source = (await stage.mirror.state()).source  # type: ignore[union-attr]

    async def write() -> None:
        number = 0
        async with await psycopg.AsyncConnection.connect(stage.settings.database_url, autocommit=True) as session:
            while not over.is_set():
                number += 1
                name, last = f"n{number % 100}", f"n{(number - 3) % 100}"
                made = await session.execute(
                    "INSERT INTO users (id, username, rating) VALUES (%s, %s, 1500) ON CONFLICT DO NOTHING"
                    " RETURNING version", (name, f"{name}-x"),
                )  # fmt: skip
                rows = await made.fetchall()
                if rows:
                    await stage.mirror.put([Rated(user(name, rows[0][0]), None)], source=source)
                gone = await session.execute("DELETE FROM users WHERE id = %s RETURNING id", (last,))
                if gone.rowcount:
                    query = "SELECT version FROM user_tombstones WHERE id = %s"
                    for (version,) in await (await session.execute(query, (last,))).fetchall():
                        removed = Removed(UserId(last), Version(version))
                        await stage.mirror.put([removed], source=source)
                await stage.mirror.standings([UserId("user1")], source=source)

    writing = asyncio.create_task(write())
    try:
        removed = 0
        async with asyncio.timeout(20):
            while removed < 15:
                removed += (await stage.compact()).tombstones_removed
    finally:
        over.set()
        await writing
