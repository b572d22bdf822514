"""Cached users: valid in exactly their version, and nothing else is mistaken for one."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model import User, UserId, Version
from service.store import objects
from service.store.history import ANY_SOURCE, digest
from service.store.keys import user_object
from service.store.lua import STORE_OBJECTS

HERE = "1:00000001:5:here"
BEFORE = f"7|{digest(HERE)}|".encode()
USER = User(
    UserId("u:1"),
    "magnus",
    2839,
    Version(7),
    datetime(2024, 1, 2, 3, 4, 5, 678901, UTC),
    datetime(2025, 6, 7, tzinfo=UTC),
)


def value(user: User) -> bytes:
    """What store_objects leaves in Redis for the call."""
    ((_, _, _, history, version, json, _),) = objects.store([user], HERE)
    return f"{version}|{history}|".encode() + bytes(json)


def test_a_user_comes_back_whole() -> None:
    """Every field, the moments to the microsecond."""
    assert USER == objects.decode(value(USER), Version(7), HERE)


def test_the_call_is_of_the_users_own_key() -> None:
    """One key, the version as the fence, and a time to live that is whole."""
    ((script, keys, key, _, version, _, ttl),) = objects.store([USER], HERE)

    assert (STORE_OBJECTS, 1, user_object(USER.id), 7) == (script, keys, key, version)
    assert isinstance(ttl, int)


def test_the_time_to_live_spreads_by_a_tenth() -> None:
    """Objects filled together do not expire together, and none outlives what the script takes."""
    times = [objects.store([USER], HERE)[0][6] for _ in range(500)]

    assert 270_000 <= min(times) < 280_000
    assert 320_000 < max(times) <= 330_000


@pytest.mark.parametrize("version", [0, 6, 8, 70, 77])
def test_another_version_is_a_miss(version: int) -> None:
    """Older or newer: the mirror says which one is right."""
    assert objects.decode(value(USER), Version(version), HERE) is None


def test_another_history_is_a_miss() -> None:
    """It may have given the same version to another content; who does not know the history takes any."""
    assert objects.decode(value(USER), Version(7), "1:00000002:5:there") is None
    assert USER == objects.decode(value(USER), Version(7), ANY_SOURCE)


def test_nothing_is_a_miss() -> None:
    """The object has expired, or was never filled."""
    assert objects.decode(None, Version(7), HERE) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"|",
        b"7",
        b"7|",
        b"7|{}",
        BEFORE + b"",
        BEFORE + b"{",
        BEFORE + b"null",
        BEFORE + b"[]",
        BEFORE + b"{}",
        b"07|{}",
        b" 7|{}",
        b"7.0|{}",
        b"-7|{}",
        b"\xff\xfe",
        BEFORE + b'{"id":"u:1","username":"magnus","rating":2839,"version":7}',
        BEFORE + b'{"id":"u:1","username":"magnus","rating":"2839","version":7,"created_at":"","updated_at":""}',
        BEFORE + b'{"id":"u:1","username":"\xff"}',
        BEFORE + b'{"more":' + b"[" * 100_000,
        BEFORE + b'{"rating":' + b"9" * 5000 + b"}",
    ],
    ids=lambda raw: f"{raw[:60]!r} of {len(raw)}",
)
def test_garbage_is_a_miss(raw: bytes) -> None:
    """Whoever wrote it: the user is read from Postgres, and the next fill replaces it."""
    assert objects.decode(raw, Version(7), HERE) is None


@given(st.binary(max_size=60).map(lambda rest: BEFORE + rest) | st.binary(max_size=60))
def test_any_garbage_is_a_miss(raw: bytes) -> None:
    """No bytes make it raise."""
    assert objects.decode(raw, Version(7), HERE) is None


@given(st.integers(0, len(value(USER)) - 1), st.integers(1, 255))
def test_a_damaged_object_is_a_miss_or_a_user(place: int, change: int) -> None:
    """No flipped bit makes it raise; one in the version makes it a miss."""
    raw = bytearray(value(USER))
    raw[place] ^= change

    found = objects.decode(bytes(raw), Version(7), HERE)

    assert found is None or place >= len(BEFORE)
