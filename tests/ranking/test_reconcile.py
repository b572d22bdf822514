"""A full reconciliation finds exactly what is wrong, repairs it, and touches nothing else."""

from __future__ import annotations

import pytest

from service.errors import NotReady, Unavailable
from service.model import NewUser, UserId
from service.order import member
from service.ranking.reconcile import LockBusy
from service.ranking.repair import NotSafe
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store.feed import RECONCILE_LOCK, Feed
from service.store.inspection import Inspection
from service.store.mirror import Mirror, Refused
from tests.ranking.damages import COUNT, DAMAGES, all_at_once
from tests.ranking.equality import assert_mirror_equals_ledger, mirror_board, ready
from tests.ranking.reconciling import (
    BOARD,
    NOTE,
    STATE,
    USERS,
    Session,
    bypassing,
    counts,
    everything,
    held,
    insert,
    interfering,
    place,
    reconcile,
)

pytestmark = pytest.mark.usefixtures("loaded")


@pytest.fixture
async def loaded(ledger: Session, settings: Settings, mirror: Mirror) -> Tailer:
    """A board of 300 users and some deleted ones, and the tailer that loaded it, which does not run."""
    insert(ledger, COUNT)
    insert(ledger, 20, "gone")
    tailer = Tailer(settings.database_url, mirror)
    await tailer.catch_up()
    ledger.execute("DELETE FROM users WHERE id LIKE 'gone%'")
    await tailer.catch_up()
    return tailer


@pytest.mark.parametrize("name", DAMAGES)
async def test_drift_is_found_repaired_and_gone(ledger, board, settings, name) -> None:
    """A dry run reports exactly the damage and changes nothing; a run repairs it; the next one finds nothing."""
    damage, expected = DAMAGES[name]
    damage(ledger, board)
    before = everything(board)
    found = await reconcile(settings, dry_run=True)

    assert expected == counts(found)
    assert before == everything(board)
    assert sum(expected.values()) - expected.get("miscount", 0) == found.remaining

    repaired = await reconcile(settings)

    assert expected == counts(repaired)
    assert (found.remaining, 0, 0) == (repaired.repaired, repaired.raced, repaired.remaining)
    await assert_mirror_equals_ledger(settings)

    again = await reconcile(settings)

    assert {} == counts(again)
    assert len(mirror_board(settings)[0]) == again.checked
    assert not board.exists(NOTE)


@pytest.mark.parametrize(
    "damage",
    [
        lambda board: board.hset(USERS, "user1", held(10**6, "user-1")),
        lambda board: board.hset(USERS, "user1", str(10**6) + "|"),
    ],
    ids=["user", "tombstone"],
)
async def test_a_newer_mirror_is_set_back_only_when_allowed(board, settings, damage) -> None:
    """Versions that Postgres has not are reported and left alone; with --allow-rewind they are replaced."""
    damage(board)
    first = await reconcile(settings)

    assert (1, 0, 1) == (first.ahead, first.repaired, first.remaining)
    assert board.hget(USERS, "user1").startswith(b"1000000|")

    second = await reconcile(settings, allow_rewind=True)

    assert (1, 1, 0) == (second.ahead, second.repaired, second.remaining)
    assert {} == counts(await reconcile(settings))
    await assert_mirror_equals_ledger(settings)


async def test_a_board_under_repair_never_looks_damaged(board, settings, mirror) -> None:
    """Ghosts stand where users stood, so the count is right: it must stay so, or a tailer would load everything anew."""
    board.zrem(BOARD, *(place(number) for number in range(1, 41)))
    board.zadd(BOARD, {f"ghost~ghost{number}": 1500 for number in range(40)})
    looks: list[bool] = []

    class Watched(Inspection):
        async def fix(self, *arguments, **named):
            fixed = await super().fix(*arguments, **named)
            state = await mirror.state()
            looks.append(bool(state and state.intact))
            return fixed

    report = await reconcile(settings, inspection=Watched)

    assert {"corrupt": 40, "ghost": 40} == counts(report)
    assert [True] == looks
    assert board.zcard(BOARD) <= board.hlen(USERS)
    assert not board.exists(f"{NOTE}:repair")
    await assert_mirror_equals_ledger(settings)


async def test_the_tail_goes_on_after_a_repair(loaded, ledger, board, settings) -> None:
    """What was repaired keeps its version, so later writes are carried over as ever, without another load."""
    epoch = board.hget(STATE, "epoch")
    all_at_once(ledger, board)
    await reconcile(settings)
    ledger.execute("UPDATE users SET rating = rating + 1")
    ledger.execute("DELETE FROM users WHERE rating %% 7 = 0", ())
    await loaded.catch_up()

    assert epoch == board.hget(STATE, "epoch")
    await assert_mirror_equals_ledger(settings)


async def test_a_cached_user_does_not_outlive_a_bypassed_trigger(ladder, ledger, settings) -> None:
    """The version is unchanged, so the cached object would still be taken for valid: the repair drops it."""
    await ready(ladder)
    created = await ladder.create(NewUser(UserId("cached"), "cached", 1500))
    assert 1500 == (await ladder.user(UserId("cached"))).value.user.rating
    bypassing(ledger, "UPDATE users SET rating = 1600 WHERE id = 'cached'")
    assert 1 == (await reconcile(settings)).corrupt
    answer = (await ladder.user(UserId("cached"))).value

    assert (1600, 1600, created.user.version) == (answer.user.rating, answer.standing.rating, answer.user.version)


async def test_too_many_removals_are_refused_before_the_first(loaded, ledger, board, settings) -> None:
    """An emptied database costs the mirror nobody, however often it is tried, unless it is forced."""
    insert(ledger, 1500, "more")
    await loaded.catch_up()
    bypassing(ledger, "DELETE FROM users")
    before = everything(board)
    for _ in range(2):
        with pytest.raises(NotSafe, match="more than 1,000"):
            await reconcile(settings)
        board.delete(NOTE, f"{NOTE}:repair")

        assert before == everything(board)
    assert COUNT + 1500 == (await reconcile(settings, dry_run=True)).orphan
    assert COUNT + 1500 == (await reconcile(settings, force=True)).repaired
    await assert_mirror_equals_ledger(settings)


async def test_another_database_is_refused(board, settings, stores) -> None:
    """A board is only compared with the history it mirrors."""
    before = everything(board)
    other = stores.create(stores.template)
    try:
        with pytest.raises(NotSafe, match="another database"):
            await reconcile(Settings(database_url=stores.url(other), redis_url=settings.redis_url))
    finally:
        stores.drop(other)

    assert before == everything(board)


@pytest.mark.parametrize(
    "damage",
    [
        lambda board: board.flushdb(),
        lambda board: board.hset(STATE, "ready", "0"),
        lambda board: board.hdel(STATE, "n"),
    ],
    ids=["no-board", "loading", "no-size"],
)
async def test_what_is_not_loaded_is_not_compared(board, settings, damage) -> None:
    damage(board)

    with pytest.raises(NotReady):
        await reconcile(settings)


async def test_a_second_reconciliation_is_turned_away(settings, database_url) -> None:
    """The lock is the session's, so it is free as soon as the first one has ended, however it did."""
    async with Feed(database_url) as other:
        assert await other.try_lock(RECONCILE_LOCK)
        with pytest.raises(LockBusy):
            await reconcile(settings)

    assert {} == counts(await reconcile(settings))


@pytest.mark.parametrize("at", ["users", "fix", "board", "resync"])
async def test_a_board_that_is_started_anew_ends_the_pass(board, settings, at) -> None:
    """Nothing decided on the old board is done to the new one."""
    board.hdel(USERS, "user1")
    touched: list[dict[bytes, object]] = []

    def anew(step: str) -> None:
        if step == at and not touched:
            board.hset(STATE, "epoch", "another")
            touched.append(everything(board))

    with pytest.raises(Refused):
        await reconcile(settings, inspection=interfering(anew))
    board.delete(NOTE)

    after = everything(board)
    touched[0].pop(NOTE.encode(), None)
    assert touched == [after]


async def test_members_lost_during_the_pass_are_not_blessed(board, settings) -> None:
    """A size that does not fit any more for another reason than at the beginning is left as it is: not ready."""
    board.zrem(BOARD, place(1))

    def lose(step: str) -> None:
        if step == "resync":
            board.zrem(BOARD, place(2))

    with pytest.raises(Unavailable, match="lost or added"):
        await reconcile(settings, inspection=interfering(lose))
    assert board.zcard(BOARD) != int(board.hget(STATE, "n"))
    assert 1 == (await reconcile(settings)).corrupt
    await assert_mirror_equals_ledger(settings)


async def test_a_repair_loses_to_a_newer_write(board, settings) -> None:
    """What the tailer brings between the decision and the repair stays."""
    board.zrem(BOARD, place(1))
    newer = "user1", held(10**6, "newer"), member("newer", UserId("user1"))

    def write(step: str) -> None:
        if step == "fix":
            board.hset(USERS, newer[0], newer[1])
            board.zadd(BOARD, {newer[2]: 2000})
            board.hincrby(STATE, "n", 1)

    report = await reconcile(settings, inspection=interfering(write))

    assert (1, 0, 1) == (report.corrupt, report.repaired, report.raced)
    assert newer[1].encode() == board.hget(USERS, "user1")
