"""What the mirror makes of the state hash, whatever is or is not in it; no script is at stake, so no server is."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import fakeredis
import pytest

from service.model import Checkpoint
from service.store.keys import BoardKeys
from service.store.mirror import Mirror, State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from service.store.redis import Client

KEYS = BoardKeys.of("ladder")
FIELDS: Mapping[bytes | bytearray | memoryview[int] | str | int | float, str] = {
    "fmt": "1",
    "src": "here",
    "epoch": "e1",
    "tok": "t1",
    "ready": "1",
    "n": "2",
    "cx": "700",
    "ci": "u:1",
    "ld": "u:2",
    "applied": "1000",
    "floor": "5",
}
USED = [str(field) for field in FIELDS if field != "floor"]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A Redis in this process, with two users on the board and a tombstone beside it."""
    fake = cast("Client", fakeredis.FakeAsyncRedis())
    await fake.hset(KEYS.state, mapping=FIELDS)
    await fake.zadd(KEYS.board, {"B~u:1": 1500, "A~u:2": 1600})
    await fake.hset(KEYS.users, mapping={"u:1": "1|B", "u:2": "2|A", "u:3": "3|"})
    yield fake
    await fake.aclose()


async def state(client: Client) -> State | None:
    """What the mirror says."""
    return await Mirror(client).state()


async def test_every_field_is_told(client: Client) -> None:
    """As the words of the product; tombstones are no users."""
    told = await state(client)

    assert told is not None
    assert (
        State("1", "here", "e1", "t1", True, True, Checkpoint("700", "u:1"), "u:2", 2, 3, told.lag_ms, told.now_ms)
        == told
    )
    assert told.now_ms - 1000 == told.lag_ms


async def test_there_may_be_no_board(client: Client) -> None:
    """Then there is nothing to tell, whatever else is left."""
    await client.delete(KEYS.state)

    assert await state(client) is None


@pytest.mark.parametrize("field", USED)
async def test_a_state_without_a_field_is_none(client: Client, field: str) -> None:
    """A board that cannot vouch for itself is begun anew."""
    await client.hdel(KEYS.state, field)

    assert await state(client) is None


@pytest.mark.parametrize("field", ["n", "applied"])
@pytest.mark.parametrize("value", ["", "x", "1.5", "nan"])
async def test_a_state_with_a_number_that_is_none_is_none(client: Client, field: str, value: str) -> None:
    """As good as missing."""
    await client.hset(KEYS.state, field, value)

    assert await state(client) is None


async def test_a_field_that_is_no_text_is_as_good_as_missing(client: Client) -> None:
    """Bytes that somebody else left there make nobody raise: the board is begun anew."""
    await client.hset(KEYS.state, "tok", b"\xff\xfe")

    assert await state(client) is None


async def test_a_field_of_a_later_release_does_no_harm(client: Client) -> None:
    """Two releases may run side by side during a deploy."""
    await client.hset(KEYS.state, "more", "later")

    assert await state(client) is not None


@pytest.mark.parametrize(
    ("damage", "intact"),
    [
        (("ZADD", KEYS.board, "1", "C~u:4"), False),
        (("ZREM", KEYS.board, "A~u:2"), False),
        (("DEL", KEYS.board), False),
        (("DEL", KEYS.users), False),
        (("HDEL", KEYS.users, "u:2", "u:3"), False),
        (("HSET", KEYS.state, "n", "3"), False),
        (("HDEL", KEYS.users, "u:3"), True),
        (("HSET", KEYS.users, "u:4", "4|"), True),
    ],
)
async def test_a_board_is_intact_with_the_members_it_expects(
    client: Client, damage: tuple[str, ...], intact: bool
) -> None:
    """The expected number of members, and each of them with a fence; tombstones may come and go."""
    await client.execute_command(*damage)

    told = await state(client)

    assert told is not None
    assert intact is told.intact


@pytest.mark.parametrize(
    ("damage", "intact"), [(("HDEL", KEYS.users, "u:2", "u:3"), True), (("DEL", KEYS.users), False)]
)
async def test_a_repair_excuses_strangers_but_no_lost_users(
    client: Client, damage: tuple[str, ...], intact: bool
) -> None:
    """Without the users hash a rename leaves the old name on the board, and every rank below it is wrong."""
    await client.set(KEYS.repair, "1")
    await client.execute_command(*damage)

    told = await state(client)

    assert told is not None
    assert intact is told.intact


@pytest.mark.parametrize(("value", "ready"), [("1", True), ("0", False), ("", False), ("true", False), ("2", False)])
async def test_a_board_is_ready_by_one_word(client: Client, value: str, ready: bool) -> None:
    """Anything but "1" is not."""
    await client.hset(KEYS.state, "ready", value)

    told = await state(client)

    assert told is not None
    assert ready is told.ready


async def test_a_mark_from_the_future_tells_no_lag(client: Client) -> None:
    """The clock of Redis was set back, or is another one than the mark's."""
    await client.hset(KEYS.state, "applied", str(10**15))

    told = await state(client)

    assert told is not None
    assert told.lag_ms is None
    assert not told.applied_since(0)


async def test_a_key_of_another_type_is_no_board(client: Client) -> None:
    """Somebody wrote where the board is."""
    await client.delete(KEYS.state)
    await client.set(KEYS.state, "not a hash")

    assert await state(client) is None


async def test_a_board_has_its_own_state(client: Client) -> None:
    """Another board in the same Redis is not looked at."""
    assert await Mirror(client, board="another").state() is None
