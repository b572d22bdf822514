"""The tie rule, without a server."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from service import order
from service.model import USERNAME, Row, UserId

usernames = st.from_regex(USERNAME, fullmatch=True).map(lambda text: text.rstrip("\n")).filter(USERNAME.match)
prefixes = st.text("aAb.-_9", min_size=3, max_size=6)


@given(usernames | prefixes)
def test_encoding_is_its_own_inverse(username: str) -> None:
    assert username == order.encode(order.encode(username))


@given(usernames | prefixes)
def test_a_member_gives_back_name_and_id(username: str) -> None:
    assert (username, "x:1") == order.decode(order.member(username, UserId("x:1")))


@given(st.lists(prefixes | usernames, unique=True))
@example(["abc", "abc-", "abcz", "abca", "abc_"])
def test_members_by_bytes_descending_are_usernames_ascending(names: list[str]) -> None:
    """ZREVRANGE walks equal scores by member bytes, descending: that must be the order of the names."""
    members = sorted((order.member(name, UserId("1")).encode() for name in names), reverse=True)

    assert sorted(name.encode() for name in names) == [order.decode(m.decode())[0].encode() for m in members]


@given(st.lists(st.text(max_size=12) | st.from_regex("[A-Za-z0-9_.-]{3,8}~[A-Za-z0-9_.:-]{1,8}", fullmatch=True)))
def test_many_members_are_decoded_as_each_alone(members: list[str]) -> None:
    """Also what somebody typed in by hand."""
    assert [order.decode(member) for member in members] == order.decode_all([member.encode() for member in members])


def test_an_encoded_name_never_contains_a_separator() -> None:
    encoded = order.encode("".join(chr(c) for c in range(128) if re.match("[A-Za-z0-9_.-]", chr(c))))

    assert not set("|~") & set(encoded)


@given(st.lists(st.integers(100, 105), max_size=30).map(lambda found: sorted(found, reverse=True)), st.integers(0, 30))
def test_ranks_carry_on_from_any_first_row(ratings: list[int], start: int) -> None:
    """Cutting the board anywhere gives the same ranks as ranking it whole."""
    board = [(UserId(str(i)), f"user{i:02}", rating) for i, rating in enumerate(ratings)]
    whole = [
        Row(i + 1, 1 + sum(r > rating for r in ratings), user_id, name, rating)
        for i, (user_id, name, rating) in enumerate(board)
    ]
    part = whole[start:]

    assert part == (order.ranked(board[start:], position=start + 1, rank=part[0].rank) if part else [])
