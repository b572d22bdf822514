"""Cursors: what was sealed comes back, and nothing else is opened."""

from __future__ import annotations

import base64
import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Invalid
from service.model import MAX_RATING, MIN_RATING, Point
from service.ranking.cursor import Cursors

CURSORS = Cursors(b"the key of these tests")
BASE64 = string.ascii_letters + string.digits + "-_"

points = st.builds(Point, st.integers(MIN_RATING, MAX_RATING), st.text(BASE64 + ".", min_size=3, max_size=32))


def unpadded(raw: bytes) -> str:
    """Base64 as a cursor has it."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(cursor: str) -> bytes:
    """The bytes of a cursor."""
    return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))


def assert_refused(cursor: str) -> None:
    """The cursor is told to be the request's mistake."""
    with pytest.raises(Invalid, match="cursor: is not a cursor of this leaderboard"):
        CURSORS.open(cursor)


@given(points)
def test_a_sealed_point_comes_back(point: Point) -> None:
    """From any process that has the key."""
    assert point == Cursors(b"the key of these tests").open(CURSORS.seal(point))


@given(points)
def test_a_cursor_needs_no_escaping(point: Point) -> None:
    """It is put into a query as it is, and a point has one cursor."""
    assert set(CURSORS.seal(point)) <= set(BASE64)
    assert CURSORS.seal(point) == CURSORS.seal(Point(point.rating, point.username))


@given(points, st.data())
def test_a_changed_byte_is_noticed(point: Point, data: st.DataObject) -> None:
    """In the code as in the point."""
    raw = bytearray(decoded(CURSORS.seal(point)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))

    assert_refused(unpadded(bytes(raw)))


@given(points, st.data())
def test_a_changed_character_is_noticed(point: Point, data: st.DataObject) -> None:
    """The last one too, of which some bits say nothing in base64."""
    cursor = CURSORS.seal(point)
    place = data.draw(st.just(len(cursor) - 1) | st.integers(0, len(cursor) - 1))
    other = data.draw(st.characters().filter(lambda character: character != cursor[place]))

    assert_refused(cursor[:place] + other + cursor[place + 1 :])


@given(points, st.data())
def test_a_cut_cursor_is_noticed(point: Point, data: st.DataObject) -> None:
    """At either end."""
    cursor = CURSORS.seal(point)
    length = data.draw(st.integers(0, len(cursor) - 1))

    assert_refused(cursor[:length])
    assert_refused(cursor[len(cursor) - length :])


@given(points, st.sampled_from(["=", "==", "===", "A", "AAAA", " ", "\n", "+", "\0", "é", "\ud800"]))
def test_nothing_may_be_added(point: Point, more: str) -> None:
    """Padding and space included: a cursor is taken back as it was given, or not at all."""
    assert_refused(CURSORS.seal(point) + more)
    assert_refused(more + CURSORS.seal(point))


def test_the_other_alphabet_of_base64_is_refused() -> None:
    """The same bytes in another spelling are not what was given out."""
    spelled = {
        CURSORS.seal(Point(rating, "somebody")): CURSORS.seal(Point(rating, "somebody")).translate(
            str.maketrans("-_", "+/")
        )
        for rating in range(MIN_RATING, MIN_RATING + 100)
    }
    other = [plain for cursor, plain in spelled.items() if cursor != plain]

    assert other
    for cursor in other:
        assert_refused(cursor)


@given(points, st.binary(max_size=40).filter(lambda key: key != b"the key of these tests"))
def test_another_key_opens_nothing(point: Point, key: bytes) -> None:
    """Not even a longer or shorter one."""
    assert_refused(Cursors(key).seal(point))


@given(st.text() | st.text(BASE64) | st.binary(max_size=80).map(unpadded))
def test_what_was_never_sealed_is_refused(text: str) -> None:
    """Whatever it is."""
    assert_refused(text)


@pytest.mark.parametrize(
    "body",
    [
        b'[2,[1500,"somebody"]]',
        b'[2,"whatever the next layout is"]',
        b'[2,{"rating":1500}]',
        b'[1,[1500,"somebody","more"]]',
        b'[1, [1500,"somebody"]]',
    ],
)
def test_a_cursor_of_another_layout_is_refused(body: bytes) -> None:
    """A release beside this one may seal other points with the same key: they are refused, and are no defect."""
    assert_refused(unpadded(CURSORS._code(body) + body))


def test_a_cursor_tells_no_more_than_the_point() -> None:
    """Behind the code stands the point alone, which the page has shown."""
    assert [1, [1500, "somebody"]] == msgspec.json.decode(decoded(CURSORS.seal(Point(1500, "somebody")))[12:])
