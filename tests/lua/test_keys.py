"""Every key of a script call lives in one slot, so that Redis Cluster would run the call."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

from service.model import Around, Change, Checkpoint, Point, Rated, User, UserId, Version, Window
from service.model import Buckets as Ratings
from service.store import lua
from service.store.buckets import Buckets
from service.store.inspection import Fix, Inspection
from service.store.keys import BoardKeys, user_object
from service.store.mirror import Feeding, Mirror, board_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from service.store.lua import Command
    from service.store.redis import Client


def crc16(data: bytes) -> int:
    """CRC-16/XMODEM, which Redis Cluster takes."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ (0x1021 if crc & 0x8000 else 0)) & 0xFFFF
    return crc


def slot(key: str) -> int:
    """The slot of a key: that of its hash tag, if it has one that is not empty."""
    _, opened, rest = key.partition("{")
    tag, closed, _ = rest.partition("}")
    return crc16((tag if opened and closed and tag else key).encode()) % 16384


def test_the_slot_is_the_one_redis_documents() -> None:
    """The reference values of the cluster specification and of the CRC's catalogue."""
    assert 0x31C3 == crc16(b"123456789")
    assert 12182 == slot("foo")
    assert slot("user1000") == slot("{user1000}.following") == slot("foo{user1000}{bar}")
    assert slot("foo{}{bar}") == crc16(b"foo{}{bar}") % 16384


@pytest.mark.parametrize("name", ["ladder", "another", "x" * 40])
def test_the_keys_of_a_board_share_a_slot(name: str) -> None:
    """Whatever the board is called."""
    keys = BoardKeys.of(name)

    assert 1 == len({slot(keys.board), slot(keys.users), slot(keys.state)})


def test_an_id_cannot_move_a_user_object_to_the_board() -> None:
    """The alphabet of ids has no braces, so every object spreads by its whole key."""
    ids = [UserId(f"id.{number}:_-") for number in range(200)]

    assert len({slot(user_object(user_id)) for user_id in ids}) > 150


async def test_every_call_of_the_mirror_stays_in_one_slot(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through every verb: each script is called, with as many keys as its header names, all in one slot."""
    calls: defaultdict[str, list[Sequence[str]]] = defaultdict(list)
    send = lua.pipeline

    async def recording(client: Client, commands: Sequence[Command], **how: bool) -> list[Any]:
        for script, *arguments in commands:
            if isinstance(script, lua.Script):
                calls[script.name].append(arguments[1 : 1 + arguments[0]])
        return await send(client, commands, **how)

    monkeypatch.setattr(lua, "pipeline", recording)
    await use_every_verb(mirror, Inspection(mirror._client))

    assert {script.name for script in lua.ALL} == set(calls)
    for script in lua.ALL:
        for keys in calls[script.name]:
            assert script.text.count("\n-- KEYS[") == len(keys)
            assert 1 == len({slot(key) for key in keys})


async def use_every_verb(mirror: Mirror, inspection: Inspection) -> None:
    """Call every script through the verbs of the mirror and of its inspection."""
    await mirror.begin(seen=await mirror.state(), source="here", checkpoint=Checkpoint("1"), floor=Version(0))
    state = await mirror.state()
    assert state is not None
    change = Change(UserId("a"), Version(1), 1500, "anna")
    feeding = Feeding(board_rows([change]), applied_ms=state.now_ms, ready=True)
    await mirror.feed(feeding, epoch=state.epoch, token=state.token)
    user = User(UserId("b"), "bert", 1500, Version(2), datetime.now(UTC), datetime.now(UTC))
    await mirror.put([Rated(user, None)], source="here")
    await mirror.standings([UserId("a")], source="here")
    await mirror.users([UserId("a")], source="here")
    await mirror.pages([Window(1), Window(1, after=Point(1500, "anna"))], source="here")
    await mirror.rosters([[UserId("a")]], source="here")
    await mirror.neighbors([Around(UserId("a"), 1)], source="here")
    await mirror.histograms([Ratings(100, 5000, 50)], source="here")
    await mirror.fill([user], source="here")
    await inspection.peek([UserId("a")], epoch=state.epoch)
    await inspection.fix([Fix(change, Version(1))], epoch=state.epoch)
    await inspection.remove_ghosts([b"stranger"], epoch=state.epoch)
    await inspection.resync(0, epoch=state.epoch)
    await mirror.compact(msgspec.structs.replace(state, run=state.run or "run"), Version(0), 0, since_ms=0)
    await inspection.sweep([UserId("a")], epoch=state.epoch)
    await Buckets(mirror._client, rate=1, burst=1).take({"192.0.2.1": 1})
