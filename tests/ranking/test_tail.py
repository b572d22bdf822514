"""The mirror becomes and stays equal to Postgres, whatever happened to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

import psycopg
import pytest

from service.app import opened
from service.errors import NotReady
from service.model import UserId
from service.ranking.ladder import Ladder
from service.ranking.load import load
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store.feed import LOCK, Feed
from service.store.mirror import Mirror, State
from tests.ranking.equality import assert_mirror_equals_ledger, ready

STATE, BOARD, USERS = "{ladder}:state", "{ladder}:board", "{ladder}:users"


@pytest.fixture
async def tailer(settings: Settings, mirror: Mirror) -> Tailer:
    """A tailer that runs only when the test says so."""
    return Tailer(settings.database_url, mirror)


def insert(ledger: psycopg.Connection[tuple[object, ...]], count: int, prefix: str = "user") -> None:
    """Create users by SQL alone, as an import or an operator would."""
    ledger.execute(
        "INSERT INTO users (id, username, rating)"
        " SELECT %(prefix)s || n, %(prefix)s || '-' || n, 1400 + n %% 50 FROM generate_series(1, %(count)s) n",
        {"prefix": prefix, "count": count},
    )


async def test_an_empty_redis_is_loaded(ledger, tailer, settings) -> None:
    insert(ledger, 2500)
    await tailer.catch_up()

    await assert_mirror_equals_ledger(settings)


async def test_sql_written_by_hand_reaches_the_mirror(ledger, tailer, settings) -> None:
    """Updates, renames, deletions and re-creations that no API process knows of are carried over."""
    insert(ledger, 300)
    await tailer.catch_up()
    ledger.execute("UPDATE users SET rating = 5000 WHERE rating = 1410")
    ledger.execute("UPDATE users SET username = 'renamed.' || id WHERE rating = 1411")
    ledger.execute("DELETE FROM users WHERE rating = 1412")
    ledger.execute("DELETE FROM users WHERE id = 'user1'")
    ledger.execute("INSERT INTO users (id, username, rating) VALUES ('user1', 'again', 123)")
    await tailer.catch_up()

    await assert_mirror_equals_ledger(settings)


@pytest.mark.parametrize(
    "damage",
    [
        lambda board: board.flushall(),
        lambda board: board.delete(STATE),
        lambda board: board.delete(BOARD),
        lambda board: board.delete(USERS),
        lambda board: board.hdel(STATE, "tok"),
        lambda board: board.hdel(STATE, "epoch"),
        lambda board: board.zadd(BOARD, {"ghost~ghost": 1500}),
        lambda board: board.zremrangebyrank(BOARD, 0, 9),
        lambda board: board.hset(STATE, "src", "another"),
        lambda board: board.hset(STATE, "fmt", "0"),
        lambda board: board.set(USERS, "not a hash"),
        lambda board: board.set(STATE, "not a hash"),
    ],
    ids=[
        "flushall",
        "no-state",
        "no-board",
        "no-users",
        "no-token",
        "no-epoch",
        "ghost",
        "lost-members",
        "other-source",
        "other-layout",
        "users-type",
        "state-type",
    ],
)
async def test_a_damaged_board_is_rebuilt(ledger, board, tailer, settings, damage) -> None:
    """Whatever key is lost or tampered with so that it shows, the next cycle leaves an exact board."""
    insert(ledger, 150)
    await tailer.catch_up()
    damage(board)
    await tailer.catch_up()

    await assert_mirror_equals_ledger(settings)


async def test_a_redis_that_fell_back_replays_what_it_lost(ledger, board, tailer, settings) -> None:
    """An older copy of all keys has an older checkpoint too: the gap is replayed without a load."""
    insert(ledger, 100)
    await tailer.catch_up()
    old = {key: board.dump(key) for key in (STATE, BOARD, USERS)}
    epoch = board.hget(STATE, "epoch")
    ledger.execute("UPDATE users SET rating = rating + 7 WHERE id IN ('user3', 'user4')")
    ledger.execute("DELETE FROM users WHERE id = 'user5'")
    await tailer.catch_up()
    for key, value in old.items():
        board.restore(key, 0, value, replace=True)
    await tailer.catch_up()

    assert epoch == board.hget(STATE, "epoch")
    await assert_mirror_equals_ledger(settings)


async def test_who_has_led_before_asks_for_the_lock_again(ledger, tailer, settings) -> None:
    """It was a session's that has ended: two that lead would refuse each other's changes."""
    insert(ledger, 20)
    await tailer.catch_up()
    async with Feed(settings.database_url) as other:
        assert await other.try_lock()
        again = asyncio.create_task(tailer.catch_up())
        done, _ = await asyncio.wait({again}, timeout=1)
        assert not done
        assert not tailer.leading
    await again

    assert tailer.leading


async def test_an_open_transaction_holds_up_nobody(ledger, tailer, settings, database_url) -> None:
    """A commit is mirrored while an older transaction is open, and that one's own rows when it ends."""
    insert(ledger, 20)
    await tailer.catch_up()
    with psycopg.connect(database_url) as older:
        older.execute("UPDATE users SET rating = 4000 WHERE id = 'user1'")
        ledger.execute("UPDATE users SET rating = 4500 WHERE id = 'user2'")
        ledger.execute("DELETE FROM users WHERE id = 'user3'")
        await tailer.catch_up()
        await assert_mirror_equals_ledger(settings)
        older.commit()
    await tailer.catch_up()

    await assert_mirror_equals_ledger(settings)


async def test_many_unsettled_rows_are_all_applied(ledger, tailer, settings, database_url) -> None:
    """More rows than one read takes are above the horizon: freshness is claimed only when all are in."""
    insert(ledger, 2500)
    await tailer.catch_up()
    with psycopg.connect(database_url) as older:
        older.execute("SELECT pg_current_xact_id()")
        for low in range(0, 50, 10):
            ledger.execute(
                "UPDATE users SET rating = rating + 100 WHERE rating BETWEEN %s AND %s", (1400 + low, 1409 + low)
            )
        await tailer.catch_up()

        await assert_mirror_equals_ledger(settings)


async def test_the_board_is_not_read_before_the_load_is_through(ledger, mirror, settings, monkeypatch) -> None:
    """Until the last row and the tail behind it are in, every read is refused."""
    monkeypatch.setattr("service.ranking.load.STRETCH_PAGES", 2)
    insert(ledger, 1500)
    tailer, refused = Tailer(settings.database_url, mirror), 0
    loading = asyncio.create_task(tailer.catch_up())
    while not loading.done():
        try:
            board, _ = await mirror.standings([UserId("user1")], source="")
        except NotReady:
            refused += 1
        else:
            assert 1500 == board.total
    await loading

    assert refused > 0


async def test_a_load_that_died_is_resumed(ledger, board, tailer, settings, monkeypatch) -> None:
    """Another process goes on where the loader stopped; rows deleted meanwhile do not come back."""
    monkeypatch.setattr("service.ranking.load.STRETCH_PAGES", 10)
    insert(ledger, 2500)
    async with Feed(settings.database_url) as feed:
        tailer.source = await feed.adopt()
        begun = await tailer._begin(feed, None)
        rows = 0

        def stop(loaded: int) -> None:
            nonlocal rows
            rows = loaded
            raise InterruptedError

        with pytest.raises(InterruptedError):
            await load(feed, tailer._mirror, begun, stop)
    marked = board.hget(STATE, "ld")
    ledger.execute("DELETE FROM users WHERE id = 'user1'")
    ledger.execute("UPDATE users SET rating = 4999 WHERE id = 'user10'")
    await tailer.catch_up()

    assert 0 < rows < 2500
    assert marked.endswith(b":10")
    assert begun.epoch.encode() == board.hget(STATE, "epoch")
    await assert_mirror_equals_ledger(settings)


async def test_a_table_that_is_rewritten_during_a_load_is_walked_again(
    ledger, board, tailer, settings, monkeypatch
) -> None:
    """Rows have moved to another file and other places in it: none is left out."""
    # Several steps, because the one behind the rewrite is read ahead.
    monkeypatch.setattr("service.ranking.load.STRETCH_PAGES", 4)
    insert(ledger, 3000)
    ledger.execute("DELETE FROM users WHERE rating < 1430")

    def rewrite_once(_: int) -> None:
        if not board.exists("rewritten"):
            board.set("rewritten", 1, ex=60)
            ledger.execute("VACUUM FULL users")

    await tailer.catch_up(progress=rewrite_once)

    assert board.exists("rewritten")
    await assert_mirror_equals_ledger(settings)


async def test_two_tailers_without_a_lock_do_no_harm(ledger, settings, mirror) -> None:
    """The token chain, not the lock, is what keeps the board right: both feed, one page wins at a time."""
    insert(ledger, 1200)
    tailers = [Tailer(settings.database_url, mirror) for _ in range(2)]
    async with Feed(settings.database_url) as first, Feed(settings.database_url) as second:
        for tailer in tailers:
            tailer.source = await first.adopt()
        for round_ in range(10):
            ledger.execute("UPDATE users SET rating = 100 + (random() * 4900)::int WHERE rating %% 10 = %s", (round_,))
            await asyncio.gather(tailers[0].cycle(first), tailers[1].cycle(second))
        await tailers[0].cycle(first)

        await assert_mirror_equals_ledger(settings)


async def test_a_second_process_takes_over(ledger, settings) -> None:
    """When the process that feeds ends, another one does it within two seconds."""
    async with opened(settings) as survivor:
        async with opened(settings) as first:
            await ready(first)
        insert(ledger, 50)
        begun = time.monotonic()
        while await _users(survivor) != 50:
            assert time.monotonic() - begun < 5
            await asyncio.sleep(0.01)

        await assert_mirror_equals_ledger(settings)


async def _users(ladder: Ladder) -> int:
    state = await ladder.mirror_state()
    return state.users if state else -1


async def test_a_lost_put_is_healed_in_half_a_second(ladder, ledger, board, settings) -> None:
    """With every put lost, a write is on the board within one poll of the tailer."""
    await ready(ladder)
    seconds = []
    for number in range(10):
        begun = time.monotonic()
        ledger.execute(
            "INSERT INTO users (id, username, rating) VALUES (%s, %s, %s)",
            (f"late{number}", f"late-{number}", random.randint(100, 5000)),
        )
        while not board.hexists(USERS, f"late{number}"):
            await asyncio.sleep(0.005)
        seconds.append(time.monotonic() - begun)

    assert 0.5 > sorted(seconds)[-2]
    await assert_mirror_equals_ledger(settings)


async def test_a_deadline_holds_although_a_driver_swallows_the_cancellation(
    ledger, tailer, mirror, monkeypatch
) -> None:
    """As Python 3.11 may, where a driver's own timeout ends at the same moment. The lock is held: it would wait forever."""
    await tailer.catch_up()
    ledger.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
    ask = mirror.state

    async def swallow() -> State | None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.1)
        told: State | None = await ask()
        return told

    monkeypatch.setattr(mirror, "state", swallow)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await tailer.catch_up()
