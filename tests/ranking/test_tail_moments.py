"""What happens in between two steps of the tail: whatever ends there is lost to nobody, and nothing is claimed early."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest
import redis

from service.errors import NotReady, StoreBug
from service.model import Checkpoint, UserId, Version
from service.ranking import tail
from service.ranking.load import load
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store.feed import Feed
from service.store.mirror import BoardRow, Feeding, Mirror
from tests.ranking.equality import assert_mirror_equals_ledger
from tests.ranking.reconciling import BOARD, STATE, Session, insert, place


class Watched(Feed):
    """A feed after whose statements something happens, once each."""

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url)
        self.after: defaultdict[str, list[Callable[[], object]]] = defaultdict(list)

    async def _read(self, query: str, **parameters: object) -> list[tuple[Any, ...]]:
        rows = await super()._read(query, **parameters)
        if self.after[query]:
            self.after[query].pop(0)()
        return rows


@pytest.fixture(autouse=True)
def ledger(ledger: Session) -> Session:
    """A session of somebody who writes SQL by hand, and has written twenty users."""
    insert(ledger, 20)
    return ledger


@pytest.fixture
async def feed(database_url: str) -> AsyncIterator[Watched]:
    """The feed of the tailer."""
    async with Watched(database_url) as opened:
        yield opened


@pytest.fixture
async def tailer(settings: Settings, mirror: Mirror, feed: Feed) -> Tailer:
    """A tailer that runs only when the test says so."""
    tailer = Tailer(settings.database_url, mirror)
    tailer.source = await feed.adopt()
    return tailer


@pytest.fixture
def older(database_url: str) -> Iterator[Session]:
    """A transaction that will be the oldest one: it begins with the first statement."""
    with psycopg.connect(database_url) as session:
        yield session


async def test_whoever_commits_behind_the_look_is_not_passed_over(older, feed, tailer, settings) -> None:
    """The checkpoint is the horizon of the very snapshot that the rows are from: what ended since is above it."""
    await tailer.cycle(feed)
    older.execute("UPDATE users SET rating = 4000 WHERE id = 'user1'")
    feed.after["changes"].append(older.commit)
    await tailer.cycle(feed)
    await tailer.cycle(feed)

    await assert_mirror_equals_ledger(settings)


async def test_the_checkpoint_waits_for_the_oldest_transaction(ledger, older, feed) -> None:
    """However few rows are asked for, none is from above the horizon: the checkpoint would pass what is still open."""
    begun, _ = await feed.origin()
    older.execute("UPDATE users SET rating = 4000 WHERE id = 'user1'")
    ledger.execute("UPDATE users SET rating = 4500 WHERE id = 'user2'")
    ledger.execute("DELETE FROM users WHERE id = 'user3'")
    changes, checkpoint, drained = await feed.changes(begun, limit=1)

    assert ([], True) == (changes, drained)
    older.commit()
    changes, _, _ = await feed.changes(checkpoint, limit=10)
    assert ["user1", "user2", "user3"] == sorted(change.id for change in changes)


async def test_whatever_ends_between_the_looks_is_in_one_of_them(ledger, older, board, feed, tailer) -> None:
    """
    A write is claimed that an older transaction kept above the horizon for the first look, and not for the second.

    In the other order it would be in neither.
    """
    await tailer.cycle(feed)
    older.execute("UPDATE users SET rating = 4000 WHERE id = 'user1'")
    ledger.execute("UPDATE users SET rating = 4500 WHERE id = 'user2'")
    for query in ("unsettled", "changes"):
        feed.after[query].append(older.commit)
    await tailer.cycle(feed)

    assert 4500 == board.zscore(BOARD, place(2))


async def test_freshness_is_that_of_the_moment_before_the_look(board, feed, tailer) -> None:
    """What is committed behind the look must not be claimed, however long its rows take."""
    await tailer.cycle(feed)
    behind: list[int] = []

    def wait_for_the_next_millisecond() -> None:
        begun = _now_ms(board)
        while (now := _now_ms(board)) == begun:
            pass
        behind.append(now)

    feed.after["changes"].append(wait_for_the_next_millisecond)
    await tailer.cycle(feed)

    assert int(board.hget(STATE, "applied")) < behind[0]


def _now_ms(board: redis.Redis) -> int:
    seconds, micros = board.time()
    return seconds * 1000 + micros // 1000


async def test_a_load_alone_makes_no_board_readable(ledger, feed, tailer, mirror) -> None:
    """Who was deleted or written while it walked is the tail's to bring, and stands wrong until then."""
    begun = await tailer._begin(feed, None)
    await load(feed, mirror, begun, lambda _: ledger.execute("DELETE FROM users WHERE id = 'user1'"))

    with pytest.raises(NotReady):
        await mirror.standings([UserId("user1")], source="")


async def test_a_load_that_died_in_a_stretch_goes_on_at_its_beginning(
    feed, tailer, mirror, settings, monkeypatch
) -> None:
    """Where a load goes on is noted with the last row of what is before it."""
    monkeypatch.setattr("service.ranking.load.PIPELINE_ROWS", 8)

    def stop(_: int) -> None:
        raise InterruptedError

    begun = await tailer._begin(feed, None)
    with pytest.raises(InterruptedError):
        await load(feed, mirror, begun, stop)

    left = await mirror.state()
    assert (8, "") == (left.users, left.loaded)
    await tailer.cycle(feed)
    await assert_mirror_equals_ledger(settings)


async def test_a_part_of_the_tail_claims_nothing(ledger, board, feed, tailer, monkeypatch) -> None:
    """Ready, and fresh, is said with the last of what was found, not with the first."""
    monkeypatch.setattr(tail, "TAIL_ROWS", 8)
    begun = await tailer._begin(feed, None)
    token = await load(feed, tailer._mirror, begun, lambda _: None)
    ledger.execute("UPDATE users SET rating = rating + 1")
    claimed: list[list[bytes | None]] = []
    feed.after["changes"] += [lambda: claimed.append(board.hmget(STATE, "ready", "applied"))] * 3
    await tailer._settle(feed, begun, token)

    assert [[b"0", b"0"]] * 3 == claimed
    assert b"1" == board.hget(STATE, "ready")


async def test_nothing_is_claimed_before_the_last_row_is_in(feed, tailer, mirror) -> None:
    """Of rows that need two calls the second is refused: the checkpoint is still the one before the first."""
    begun = await tailer._begin(feed, None)
    good: list[BoardRow] = [(UserId(f"good{number}"), Version(number), 1500, "name") for number in range(1, 150)]
    bad: BoardRow = (UserId("bad"), Version(150), 1500, "no|name")
    feeding = Feeding([*good, bad], checkpoint=Checkpoint("999999", "z"), loaded="1:9", applied_ms=5, ready=True)
    with pytest.raises(StoreBug):
        await mirror.feed(feeding, epoch=begun.epoch, token=begun.token)

    state = await mirror.state()
    assert 0 < state.users < 150
    assert (begun.checkpoint, begun.loaded, False) == (state.checkpoint, state.loaded, state.ready)
