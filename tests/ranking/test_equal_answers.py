"""Redis, SQL and a Python model give the same board, row by row, on random boards full of ties."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.model import (
    Checkpoint,
    NewRating,
    NewUser,
    Page,
    Point,
    Rated,
    Row,
    Standing,
    User,
    UserId,
    Version,
    Window,
    new_user_id,
)
from service.ranking.cursor import Cursors
from service.ranking.fallback import Fallback
from service.store.feed import Feed
from service.store.ledger import Ledger
from service.store.mirror import Feeding, Mirror
from service.store.postgres import Postgres, borrowed
from tests.ranking.model import board

# Few letters and short names: many are prefixes of each other, or differ in case alone, a dot, a dash.
names = st.text("aAbBzZ09.-_", min_size=3, max_size=5)
ratings = st.sampled_from([100, 1499, 1500, 1500, 1500, 1501, 5000]) | st.integers(100, 5000)
boards = st.lists(st.tuples(names, ratings), max_size=25, unique_by=lambda row: row[0].lower())
points = st.builds(Point, ratings, names)
windows = st.builds(Window, st.integers(1, 30), st.integers(0, 30))


class Pair:
    """A ledger, and a mirror that holds what the ledger holds."""

    def __init__(self, postgres: Postgres, mirror: Mirror, source: str, origin: tuple[Checkpoint, Version]) -> None:
        self._postgres = postgres
        self._origin = origin
        self.ledger, self.mirror, self.source = Ledger(postgres), mirror, source

    async def start(self, rows: list[tuple[str, int]]) -> dict[UserId, User]:
        """Empty both, then create users and put them as a write does; returns them by id."""
        async with borrowed(self._postgres.writes) as connection:
            await connection.execute("DELETE FROM users")
        checkpoint, floor = self._origin
        await self.mirror.begin(seen=await self.mirror.state(), source=self.source, checkpoint=checkpoint, floor=floor)
        state = await self.mirror.state()
        assert state is not None
        await self.mirror.feed(Feeding(applied_ms=state.now_ms, ready=True), epoch=state.epoch, token=state.token)
        created = await self.ledger.create([NewUser(new_user_id(), *row) for row in rows]) if rows else []
        written = [item for item in created if isinstance(item, Rated)]
        assert len(rows) == len(written)
        _, placed = await self.mirror.put(written, source=self.source) if written else (0, [])
        assert all(item.outcome == "applied" for item in placed)
        return {item.user.id: item.user for item in written}

    async def page(self, window: Window, total: int) -> list[Row]:
        """Return the window's rows, asserted to be the same from both stores."""
        (mirrored,) = await self.mirror.pages([window], source=self.source)
        assert isinstance(mirrored, Page)
        counted = await self.ledger.page(window)
        assert counted.rows == mirrored.rows
        assert total == counted.board.total == mirrored.board.total
        return mirrored.rows


@pytest.fixture
async def pair(database_url: str, mirror: Mirror) -> AsyncIterator[Pair]:
    """Both stores, opened once and emptied for each example."""
    postgres = Postgres(database_url)
    await postgres.open()
    async with Feed(database_url) as feed:
        source, origin = await feed.adopt(), await feed.origin()
    yield Pair(postgres, mirror, source, origin)
    await postgres.close()


def thorough(examples: int) -> settings:
    """Hypothesis settings for `examples` boards; the fixture is emptied for each, so it may be shared."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


async def agree(pair: Pair, rows: list[tuple[str, int]], window: Window, point: Point) -> None:
    """Assert that rank, position and both kinds of page are equal from either store and equal to the model's."""
    users = await pair.start(rows)
    expected = board(users)

    ids = [*users, UserId("nobody")]
    _, mirrored = await pair.mirror.standings(ids, source=pair.source)
    counted = {user_id: standing for user_id, (_, standing) in (await pair.ledger.standings(ids)).items()}
    modelled = {row.id: Standing(users[row.id].version, row.rating, row.rank, row.position) for row in expected}
    assert modelled == mirrored == counted

    page = await pair.page(window, len(users))
    assert expected[window.offset : window.offset + window.limit] == page

    after = await pair.page(Window(window.limit, after=point), len(users))
    behind = [row for row in expected if (-row.rating, row.username) > (-point.rating, point.username)]
    assert behind[: window.limit] == after


@thorough(500)
@given(rows=boards, window=windows, point=points)
async def test_redis_sql_and_model_agree(pair: Pair, rows: list[tuple[str, int]], window: Window, point: Point) -> None:
    await agree(pair, rows, window, point)


@pytest.mark.slow
@pytest.mark.timeout(300)
@thorough(2000)
@given(rows=boards, window=windows, point=points)
async def test_they_agree_on_thousands(pair: Pair, rows: list[tuple[str, int]], window: Window, point: Point) -> None:
    await agree(pair, rows, window, point)


@thorough(100)
@given(rows=boards)
async def test_a_histogram_ranks_as_the_model_does(pair: Pair, rows: list[tuple[str, int]]) -> None:
    """While nothing changes, rank and position are exact, and the position is never in front of the rank."""
    users = await pair.start(rows)
    fallback = Fallback(pair.ledger, exact_users=-1)
    answers = [await fallback.user(row.id, exact=False) for row in board(users)]

    assert {"histogram"} >= {answer.source for answer in answers}
    assert [(row.rank, row.position) for row in board(users)] == [
        (answer.value.standing.rank, answer.value.standing.position) for answer in answers
    ]
    assert all(users[answer.value.user.id] == answer.value.user for answer in answers)


@thorough(50)
@given(rows=boards, changes=st.lists(st.tuples(st.integers(0, 24), ratings), max_size=5))
async def test_an_old_histogram_never_contradicts_itself(
    pair: Pair, rows: list[tuple[str, int]], changes: list[tuple[int, int]]
) -> None:
    """Whoever changed since is counted anew, exactly; everybody else has the rank of its moment, and a place behind it."""
    before = await pair.start(rows)
    fallback = Fallback(pair.ledger, exact_users=-1)
    if before:
        await fallback.user(next(iter(before)), exact=False)
    ids = list(before)
    for number, rating in changes:
        if number < len(ids):
            await pair.ledger.rate([NewRating(ids[number], rating)])
    after = await pair.ledger.users(ids)
    then, now = ({row.id: row for row in board(users)} for users in (before, after))
    for user_id, user in after.items():
        answer = await fallback.user(user_id, exact=False)
        standing = answer.value.standing

        assert user == answer.value.user
        assert standing.rank <= standing.position
        if user == before[user_id]:
            assert ("histogram", then[user_id].rank) == (answer.source, standing.rank)
        else:
            assert ("postgres", now[user_id].rank, now[user_id].position) == (
                answer.source, standing.rank, standing.position,
            )  # fmt: skip


@thorough(100)
@given(rows=boards, limit=st.integers(1, 5))
async def test_pages_by_cursor_are_the_pages_by_offset(pair: Pair, rows: list[tuple[str, int]], limit: int) -> None:
    """Following cursors from the first page to the last shows every row once, as the offsets do."""
    expected = board(await pair.start(rows))
    cursors = Cursors(b"key")

    seen, window = [], Window(limit)
    while page := await pair.page(window, len(expected)):
        seen += page
        cursor = cursors.seal(Point(page[-1].rating, page[-1].username))
        window = Window(limit, after=cursors.open(cursor))

    assert expected == seen
