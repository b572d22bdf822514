"""What a request may say, field by field, without a server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.datastructures import Headers

from service.api import inputs, readers
from service.api.changes import Rename
from service.api.inputs import parsed
from service.errors import Invalid, UnsupportedMediaType
from service.model import USER_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from litestar import Request

READERS = {"limit": readers.whole(1, 100), "offset": readers.whole(0, 10**6), "q": readers.some_text()}


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """A body."""

    name: str
    rating: int = 1000
    tags: list[str] = []


def request(
    *,
    query: str = "",
    body: bytes = b"",
    path: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Request[Any, Any, Any]:
    """What the readers see of a request."""

    async def read() -> bytes:
        return body

    scope = {"query_string": query.encode("latin-1"), "state": {}}
    seen: Any = SimpleNamespace(scope=scope, body=read, path_params=path or {}, headers=Headers(headers))
    return cast("Request[Any, Any, Any]", seen)


def problems(call: Callable[[], object]) -> list[tuple[str, str]]:
    """The problems that a call complains about."""
    with pytest.raises(Invalid) as caught:
        call()
    return list(caught.value.problems)


# Queries


def read(query: str, declared: Mapping[str, readers.Reader] = READERS) -> dict[str, Any]:
    """Read a query as the guard does."""
    asked = request(query=query)
    inputs.check_query(asked, cast("Any", SimpleNamespace(opt={"query": declared})))
    return inputs.query(asked)


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("", {}),
        ("limit=1", {"limit": 1}),
        ("limit=100&offset=0", {"limit": 100, "offset": 0}),
        ("offset=1000000", {"offset": 10**6}),
        ("q=a", {"q": "a"}),
        ("q=a+b%20c%2B", {"q": "a b c+"}),
        ("q=%C3%A9", {"q": "é"}),
        ("q=a=b", {"q": "a=b"}),
        ("q=a;limit=5", {"q": "a;limit=5"}),
        ("&&limit=7&", {"limit": 7}),
        ("%6Cimit=7", {"limit": 7}),
    ],
)
def test_a_query_is_read(query: str, values: dict[str, object]) -> None:
    """By the readers of its names; a name that is not given has no value."""
    assert values == read(query)


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("limit=0", ["limit"]),
        ("limit=101", ["limit"]),
        ("limit=", ["limit"]),
        ("limit", ["limit"]),
        ("limit=01", ["limit"]),
        ("limit=+1", ["limit"]),
        ("limit=%2B1", ["limit"]),
        ("limit=-1", ["limit"]),
        ("limit=1.0", ["limit"]),
        ("limit=1e1", ["limit"]),
        ("limit=1_0", ["limit"]),
        ("limit=%D9%A1", ["limit"]),
        ("limit=1%0A", ["limit"]),
        ("limit=99999999999999999999", ["limit"]),
        ("q=", ["q"]),
        ("Limit=1", ["Limit"]),
        ("x=1", ["x"]),
        ("=1", [""]),
        ("limit=1&limit=1", ["limit"]),
        ("limit=x&limit=1", ["limit", "limit"]),
        ("x=1&limit=0&q=", ["x", "limit", "q"]),
    ],
)
def test_a_bad_query_is_told_whole(query: str, fields: list[str]) -> None:
    """Every problem at once, each under the name it was given."""
    assert fields == [field for field, _ in problems(lambda: read(query))]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("q=%FF", "q"),
        ("q=%C3", "q"),
        ("q=%ED%A0%80", "q"),
        ("q=\xe9", "q"),
        ("q=%zz", "q"),
        ("limit=1&%71=%", "q"),
        ("%FF=1", "query"),
        ("\xe9=1", "query"),
        ("%=1", "query"),
        ("=%", "query"),
        ("&".join(f"x{n}=1" for n in range(21)), "query"),
    ],
)
def test_a_query_that_is_none_is_refused(query: str, field: str) -> None:
    """Not UTF-8, not ASCII on the wire, a broken escape, in the name of the parameter if that can be read; or endless."""
    assert [field] == [name for name, _ in problems(lambda: read(query))]


def test_a_route_without_parameters_takes_none() -> None:
    """Nothing is ignored: a name that was mistyped is told."""
    handler = cast("Any", SimpleNamespace(opt={}))
    asked = request(query="limit=1")

    assert [("limit", "is not a parameter of this address")] == problems(lambda: inputs.check_query(asked, handler))


def test_a_parameter_that_is_not_given_has_its_default_or_is_refused() -> None:
    """As its reader says; a value that is given is taken instead of the default."""
    declared = {"limit": readers.whole(1, 100, default=20), "q": readers.some_text(required=True)}

    assert {"limit": 20, "q": "a"} == read("q=a", declared)
    assert {"limit": 7, "q": "a"} == read("q=a&limit=7", declared)
    assert [("q", "is required")] == problems(lambda: read("limit=7", declared))
    assert [("q", "must not be empty")] == problems(lambda: read("q=", declared))


@given(st.text(max_size=20))
def test_a_whole_number_has_one_spelling(text: str) -> None:
    """What is taken is what the number would be written as."""
    try:
        number = readers.whole(0, 10**9)(text)
    except ValueError:
        assert not (text.isascii() and text.isdecimal() and str(int(text)) == text and int(text) <= 10**9)
    else:
        assert str(number) == text


# Ids


@pytest.mark.parametrize("text", ["a", "0", "u:1", "a.b_c-D", "-", "x" * 64, "search"])
def test_an_id_is_taken_from_the_path(text: str) -> None:
    """Any that a user may have; whether a route hides it is not the path's question."""
    assert text == inputs.user_id(request(path={"user_id": text}))


@pytest.mark.parametrize("text", ["", "x" * 65, "a b", "a/b", "é", "a\n", "a\0", "{a}", "a|b", "a~b", "%41", ".", ".."])
def test_an_id_that_nobody_can_have_is_refused(text: str) -> None:
    """Before a store is asked for it."""
    assert ["id"] == [field for field, _ in problems(lambda: inputs.user_id(request(path={"user_id": text})))]
    assert not USER_ID.match(text)


def test_a_reserved_id_is_given_to_nobody() -> None:
    """A route of the same name would hide the user."""
    assert "searching" == inputs.not_reserved("searching")
    assert [("id", "is reserved")] == problems(lambda: inputs.not_reserved("search"))


# Bodies


async def told(body: bytes, content_type: str = "application/json") -> Asked:
    """Read a body as a handler does."""
    return await inputs.body(request(body=body, headers={"content-type": content_type}), Asked)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        " application/json ",
        "application/json;",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/json; charset=utf8",
    ],
)
async def test_json_in_utf8_is_read(content_type: str) -> None:
    """However that is spelled."""
    assert Asked("é", 7) == await told('{"name":"é","rating":7}'.encode(), content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "\xa0application/json",
        "application/json\xa0;charset=utf-8",
        "text/json",
        "application/jsonp",
        "application/json-patch+json",
        "application/problem+json",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/json, application/json",
    ],
)
async def test_anything_else_is_another_media_type(content_type: str) -> None:
    """It is not guessed what the bytes might be; that none was declared is no permission either."""
    with pytest.raises(UnsupportedMediaType):
        await told(b'{"name":"a"}', content_type)
    with pytest.raises(UnsupportedMediaType):
        await inputs.body(request(body=b'{"name":"a"}'), Asked)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", ("body", "is not well-formed JSON in UTF-8")),
        (b"{", ("body", "is not well-formed JSON in UTF-8")),
        (b"{'name':1}", ("body", "is not well-formed JSON in UTF-8")),
        (b'{"name":"a"} {}', ("body", "is not well-formed JSON in UTF-8")),
        (b'{"name":"\xff"}', ("body", "is not well-formed JSON in UTF-8")),
        (b'{"name":"a","rating":NaN}', ("body", "is not well-formed JSON in UTF-8")),
        (b'{"name":' + b"[" * 30_000, ("name", "expected str, got array")),
        (b'{"tags":' + b"[" * 30_000, ("tags[0]", "expected str, got array")),
        (b"[" * 30_000, ("body", "expected object, got array")),
        (b"null", ("body", "expected object, got null")),
        (b"[]", ("body", "expected object, got array")),
        (b"{}", ("name", "object missing required field name")),
        (b'{"name":"a","more":1}', ("more", "object contains unknown field more")),
        (b'{"name":1}', ("name", "expected str, got int")),
        (b'{"name":"a","rating":"7"}', ("rating", "expected int, got str")),
        (b'{"name":"a","rating":7.5}', ("rating", "expected int, got float")),
        (b'{"name":"a","rating":true}', ("rating", "expected int, got bool")),
        (b'{"name":"a","rating":null}', ("rating", "expected int, got null")),
        (b'{"name":"a","tags":["x",1]}', ("tags[1]", "expected str, got int")),
    ],
    ids=lambda case: repr(case[:30]) if isinstance(case, bytes) else "",
)
async def test_a_body_that_is_not_what_was_asked_for_is_told(body: bytes, problem: tuple[str, str]) -> None:
    """Nothing is coerced; the field is named where there is one."""
    with pytest.raises(Invalid) as caught:
        await told(body)

    assert (problem,) == caught.value.problems


def test_the_pattern_in_a_message_is_a_client_s() -> None:
    """Python's quotes and its word for the end of a text would make it another rule."""
    with pytest.raises(Invalid) as refused:
        parsed(b'{"username": "a b"}', Rename)

    assert [("username", "expected str matching regex '^[A-Za-z0-9_.-]{3,32}$'")] == list(refused.value.problems)
