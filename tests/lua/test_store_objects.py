"""store_objects: a cached user is replaced by a newer one, and by nothing older."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from redis.exceptions import ResponseError

from service.model import User, UserId, Version
from service.store import lua, objects
from service.store.keys import user_object

from .calls import Scripts

KEY = user_object(UserId("a"))
TTL = 60_000
HISTORY, ANOTHER = "00c0ffee", "deadbeef"


def store(scripts: Scripts, version: int | str, json: str, ttl: int | str = TTL, history: str = HISTORY) -> list[str]:
    """Store an object under the one key of these tests."""
    return scripts.call(lua.STORE_OBJECTS, (KEY,), history, version, json, ttl)


def test_an_object_is_stored_with_its_version_for_its_time(scripts: Scripts) -> None:
    """The value is version|history|json and goes by itself."""
    assert ["ok", "stored"] == store(scripts, 7, '{"a":"|"}')
    assert f'7|{HISTORY}|{{"a":"|"}}' == scripts.client.get(KEY)
    assert TTL - 5000 < scripts.client.pttl(KEY) <= TTL


@pytest.mark.parametrize("version", [8, 10, 70, 10**15 - 1])
def test_a_newer_object_replaces_an_older_one(scripts: Scripts, version: int) -> None:
    """Newer as a number: 10 is after 7."""
    store(scripts, 7, "old")

    assert ["ok", "stored"] == store(scripts, version, "new")
    assert f"{version}|{HISTORY}|new" == scripts.client.get(KEY)


@pytest.mark.parametrize("version", [0, 1, 6, 10**14])
def test_an_older_object_replaces_nothing(scripts: Scripts, version: int) -> None:
    """A slow reader's fill finds what a writer stored meanwhile, and neither changes nor prolongs it."""
    newest = 10**15 - 1 if version > 7 else 7
    store(scripts, newest, "new", 1000)

    with scripts.unchanged():
        assert ["ok", "newer"] == store(scripts, version, "old")

    assert scripts.client.pttl(KEY) <= 1000


def test_a_key_of_another_type_is_replaced(scripts: Scripts) -> None:
    """It stands in the way of nobody: an error would be that of every write in the batch."""
    scripts.client.lpush(KEY, "not ours")

    assert ["ok", "stored"] == store(scripts, 7, "x")
    assert f"7|{HISTORY}|x" == scripts.client.get(KEY)


def test_each_object_of_a_call_is_decided_on_alone(scripts: Scripts) -> None:
    """One is older than what is there, the others are stored beside it."""
    keys = [user_object(UserId(name)) for name in "abc"]
    scripts.client.set(keys[1], f"9|{HISTORY}|held", px=TTL)

    outcomes = scripts.call(lua.STORE_OBJECTS, keys, HISTORY, 7, "x", TTL, 8, "y", TTL, 9, "z", TTL)

    assert ["ok", "stored", "newer", "stored"] == outcomes
    assert [f"7|{HISTORY}|x", f"9|{HISTORY}|held", f"9|{HISTORY}|z"] == scripts.client.mget(keys)


def test_the_same_version_starts_the_time_anew(scripts: Scripts) -> None:
    """The content is equal; who asks for the user again keeps the object."""
    store(scripts, 7, "same", 1000)

    assert ["ok", "stored"] == store(scripts, 7, "same")
    assert scripts.client.pttl(KEY) > TTL - 5000


@pytest.mark.parametrize(
    "held",
    [
        "",
        "|",
        "7",
        "x|y",
        "|7|",
        "7|y",
        *(f"{version}|{HISTORY}|y" for version in ("", "x", "-9", "9.5", "9" * 16, "ä")),
    ],
)
def test_what_is_no_object_is_replaced(scripts: Scripts, held: str) -> None:
    """Garbage does not keep a user out of the cache until it expires."""
    scripts.client.set(KEY, held, px=TTL)

    assert ["ok", "stored"] == store(scripts, 1, "good")
    assert f"1|{HISTORY}|good" == scripts.client.get(KEY)


@pytest.mark.parametrize("version", [1, 7, 8])
def test_an_object_of_another_history_is_replaced(scripts: Scripts, version: int) -> None:
    """Whatever its version: two histories gave out theirs without knowing of each other."""
    store(scripts, 7, "lost", history=ANOTHER)

    assert ["ok", "stored"] == store(scripts, version, "true")
    assert f"{version}|{HISTORY}|true" == scripts.client.get(KEY)


@pytest.mark.parametrize(("ttl", "longest"), [(1, 1), (600_000, 600_000)])
def test_the_time_to_live_has_both_its_limits(scripts: Scripts, ttl: int, longest: int) -> None:
    """From one millisecond to ten minutes."""
    assert ["ok", "stored"] == store(scripts, 7, "{}", ttl)
    assert scripts.client.pttl(KEY) <= longest


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="nothing"),
        pytest.param((HISTORY, "7", "{}"), id="three arguments"),
        pytest.param((HISTORY, "7", "{}", "1000", ""), id="five arguments"),
        pytest.param((HISTORY, "7", "{}", "1000", "8", "{}", "1000"), id="more than keys"),
        *(
            pytest.param((history, "7", "{}", "1000"), id=f"history {history!r}")
            for history in ("", "|", "0123456", "012345678", "0123456x")
        ),
        *(
            pytest.param((HISTORY, version, "{}", "1000"), id=f"version {version!r}")
            for version in ("", "x", "-1", "1.5", "1e3", "7|", "1" * 16)
        ),
        *(
            pytest.param((HISTORY, "7", "{}", ttl), id=f"ttl {ttl!r}")
            for ttl in ("", "x", "0", "-1", "600001", "1.5", "nan", "inf")
        ),
    ],
)
def test_a_malformed_call_writes_nothing(scripts: Scripts, arguments: tuple[str, ...]) -> None:
    """The object that is there stays."""
    store(scripts, 1, "{}")

    with scripts.unchanged(), pytest.raises(ResponseError, match=r"^BADARG store_objects "):
        scripts.call(lua.STORE_OBJECTS, (KEY,), *arguments)


def test_users_stored_together_do_not_expire_together(scripts: Scripts) -> None:
    """Their times spread by a tenth to either side of five minutes, so that no herd comes at once."""
    now = datetime.now(UTC)
    users = [User(UserId(f"u{number}"), "name", 1500, Version(1), now, now) for number in range(200)]
    for script, keys, *rest in objects.store(users, "here"):
        assert ["ok", *["stored"] * 100] == scripts.call(script, rest[:keys], *rest[keys:])

    times = [scripts.client.pttl(user_object(user.id)) for user in users]

    assert all(270_000 - 5000 < time <= 330_000 for time in times)
    assert max(times) - min(times) > 30_000
    assert len(set(times)) > 100
