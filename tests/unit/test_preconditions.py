"""If-Match and If-None-Match as they are read, without a server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.datastructures import Headers

from service.api.preconditions import MAX_TAGS, etags, has_tag, wanted_versions
from service.errors import Invalid

if TYPE_CHECKING:
    from litestar import Request


def request(name: str, *lines: str) -> Request[Any, Any, Any]:
    """What is seen of a request with these lines of a header."""
    raw = [(name.encode(), line.encode("latin-1")) for line in lines]
    return cast("Request[Any, Any, Any]", SimpleNamespace(headers=Headers(raw)))


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ("", []),
        (" , ,,\t", []),
        ('"v7"', [(False, "v7")]),
        ('W/"v7"', [(True, "v7")]),
        ('""', [(False, "")]),
        ('"v7", W/"v8","v9"', [(False, "v7"), (True, "v8"), (False, "v9")]),
        ('  "v7"  ,\t"v8"  ', [(False, "v7"), (False, "v8")]),
        ('"a,b"', [(False, "a,b")]),
        ('"\xe9"', [(False, "\xe9")]),
        ('"v7",', [(False, "v7")]),
        (',"v7", ,"v8"', [(False, "v7"), (False, "v8")]),
    ],
)
def test_tags_are_read(header: str, tags: list[tuple[bool, str]]) -> None:
    """Strong and weak, one or several; a comma inside a tag is the tag's, an empty element is nothing."""
    assert tags == etags(header)


@pytest.mark.parametrize(
    "header", ["v7", '"v7', 'v7"', '"v7" "v8"', 'w/"v7"', 'W/ "v7"', "*", '"v7"x', "W/", '"v7\x7f"', "'v7'"]
)
def test_what_is_no_list_of_tags_is_refused(header: str) -> None:
    """It is not guessed which version was meant."""
    with pytest.raises(ValueError, match="is not a list of entity tags"):
        etags(header)


@given(st.text('"W/, vx*', max_size=12))
def test_reading_tags_comes_to_an_end(header: str) -> None:
    """With tags or with a refusal, whatever the header."""
    try:
        tags = etags(header)
    except ValueError:
        return

    assert header.count('"') == 2 * len(tags)


@pytest.mark.parametrize(
    ("lines", "versions"),
    [
        ([], None),
        (["*"], None),
        ([" * "], None),
        (['"v7"'], (7,)),
        (['"v7-2-3"'], (7,)),
        (['"v999999999999999"'], (999999999999999,)),
        (['"v7", "v8-1-1"'], (7, 8)),
        (['"v7"', '"v8"'], (7, 8)),
        (['"v7", "v7-2-3"'], (7,)),
        (['W/"v7", "v8"'], (8,)),
        (['"x", "v8", ""'], (8,)),
        (['W/"v7"'], ()),
        (['"v7-2"'], ()),
        (['"7"'], ()),
        (['"v07"'], ()),
        (['"v-7"'], ()),
        (['"V7"'], ()),
        (['""'], ()),
        (['"v1000000000000000"'], ()),
        (['"*"'], ()),
    ],
)
def test_the_wanted_versions_are_those_of_the_tags(lines: list[str], versions: tuple[int, ...] | None) -> None:
    """None for any; none at all for tags that cannot match: weak ones, or tags that were never given out."""
    assert versions == wanted_versions(request("if-match", *lines))


@pytest.mark.parametrize(
    "lines",
    [[""], [","], ["v7"], ['"v7" "v8"'], ['*, "v7"'], ["*", "*"], ["*", '"v7"'], ['"v7'], ['"v1",' * (MAX_TAGS + 1)], ['"v7"\xa0'], ['\x85"v7"'],
     ['"v1",\xa0"v7"'], ["*\x0b"]],
)  # fmt: skip
def test_a_precondition_that_is_no_list_of_tags_is_refused(lines: list[str]) -> None:
    """Also one that is longer than is compared, or that has other white space than spaces and tabs."""
    with pytest.raises(Invalid) as caught:
        wanted_versions(request("if-match", *lines))

    assert ["If-Match"] == [field for field, _ in caught.value.problems]


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (["*"], True),
        (['"v7-1-1"'], True),
        (['W/"v7-1-1"'], True),
        (['"x", W/"v7-1-1"'], True),
        (['"x"', '"v7-1-1"'], True),
        ([', "v7-1-1"'], True),
        (['"v7"'], False),
        ([], False),
        (['"v7-1-1" "x"'], False),
        (['*, "v7-1-1"'], False),
    ],
)
def test_if_none_match_is_compared_weakly(lines: list[str], named: bool) -> None:
    """A list, in one line or several; one that is malformed names nothing, and the answer is whole."""
    assert named == has_tag(request("if-none-match", *lines), "v7-1-1")
