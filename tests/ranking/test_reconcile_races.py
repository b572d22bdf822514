"""A reconciliation in the middle of a storm of writes undoes none of them, and can be cut off anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from service.model import NewUser, UserId
from service.ranking import reconcile as reconcile_module
from service.ranking.ladder import Ladder
from service.ranking.repair import GRACE_SECONDS
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store.mirror import Mirror
from tests.ranking.equality import assert_mirror_equals_ledger, ready
from tests.ranking.reconciling import BOARD, NOTE, USERS, Session, counts, insert, interfering, place, reconcile

WRITERS = 6
IDS = 60


@pytest.fixture
async def many(ledger: Session, settings: Settings, mirror: Mirror) -> None:
    """A board of 900 users."""
    insert(ledger, 900)
    await Tailer(settings.database_url, mirror).catch_up()


async def test_a_busy_service_is_no_drift(ladder: Ladder, ledger, settings) -> None:
    """Beside a service that carries its writes over, a pass with the usual grace never raises an alarm."""
    insert(ledger, IDS, "id")
    await ready(ladder)
    over = False

    async def write(number: int) -> None:
        turn = 0
        while not over:
            turn += 1
            await ladder.rate(UserId(f"id{1 + (turn * WRITERS + number) % IDS}"), 1400 + turn % 200)
            if turn % 10 == 0:
                await ladder.create(NewUser(UserId(f"new-{number}-{turn}"), f"new-{number}-{turn}", 1500))

    writers = [asyncio.create_task(write(number)) for number in range(WRITERS)]
    passes = [await reconcile(settings, grace_seconds=GRACE_SECONDS) for _ in range(4)]
    over = True
    await asyncio.gather(*writers)

    assert [{}] * 4 == [counts(report) for report in passes]


async def test_two_passes_without_a_lock_do_no_harm(ledger, board, settings, mirror, monkeypatch) -> None:
    """The lock saves work; what keeps the board right is that a repair replaces only what was seen."""
    insert(ledger, 500)
    await Tailer(settings.database_url, mirror).catch_up()
    board.zrem(BOARD, *(place(number) for number in range(1, 300)))
    board.hdel(USERS, *(f"user{number}" for number in range(400, 450)))

    async def unlocked(*_: object) -> bool:
        return True

    monkeypatch.setattr("service.store.feed.Feed.try_lock", unlocked)
    reports = await asyncio.gather(*(reconcile(settings) for _ in range(2)), return_exceptions=True)

    # The second one to set the size right finds that it is no longer off by so much.
    assert any(not isinstance(report, BaseException) for report in reports)
    await assert_mirror_equals_ledger(settings)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("cut", range(1, 14, 2))
async def test_whoever_is_cut_off_is_gone_on_with(board, settings, monkeypatch, cut) -> None:
    """Cut off before any step, also with suspects that only it knew of: the next pass leaves an exact board."""
    monkeypatch.setattr(reconcile_module, "PAGES", 1)
    monkeypatch.setattr(reconcile_module, "_NOTE_SECONDS", 0)
    # The first pages are whole, so that there is a place to go on from when the last ones are not.
    for number in range(501, 900, 50):
        board.zrem(BOARD, place(number))
        board.hdel(USERS, f"user{number + 1}")
    board.zadd(BOARD, {"stranger~x": 1})
    steps = 0

    def die(_: str) -> None:
        nonlocal steps
        steps += 1
        if steps == cut:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await reconcile(settings, inspection=interfering(die), grace_seconds=0.05)
    noted = board.get(NOTE)
    report = await reconcile(settings)

    assert report.run_id.encode() in (noted or report.run_id.encode())
    assert 0 == report.remaining
    await assert_mirror_equals_ledger(settings)
    assert {} == counts(await reconcile(settings))


@pytest.mark.parametrize("field", ["epoch", "server", "file", "source", "terms", "garbage"])
async def test_a_place_on_other_ground_means_nothing(ledger, board, settings, mirror, field) -> None:
    """A note of another board, server, table, or with other permissions is not gone on with."""
    insert(ledger, 50)
    await Tailer(settings.database_url, mirror).catch_up()
    with pytest.raises(InterruptedError):
        await reconcile(settings, inspection=interfering(_die_at("board")))
    note = board.get(NOTE)
    board.set(NOTE, note.replace(b'"%s":' % field.encode(), b'"%s":"x","was":' % field.encode(), 1), ex=60)
    if field == "terms":
        board.set(NOTE, note.replace(b'"dry_run":false', b'"dry_run":true', 1), ex=60)
    elif field == "garbage":
        board.set(NOTE, b"{", ex=60)
    board.hdel(USERS, "user1")

    assert 1 == (await reconcile(settings)).missing


def _die_at(loop: str) -> Callable[[str], None]:
    def die(step: str) -> None:
        if step == loop:
            raise InterruptedError

    return die
