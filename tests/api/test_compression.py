"""Answers over 1 KiB come in gzip to clients that accept it; all else about them is the same."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from service.api.compression import MIN_BYTES

from .listening import listening
from .serving import Service, wait_until
from .shapes import assert_problem
from .wire import Reply, request

JSON = ("Content-Type", "application/json")
GZIP = ("Accept-Encoding", "gzip")
LONG_WAY = ("Cache-Control", "max-age=0")
"""Means nothing to us, and keeps a request from the fast lane."""
LONG = [
    "/leaderboard?limit=60",
    "/leaderboard",
    "/users/m1/neighbors?radius=20",
    "/users/search?username=many&limit=50",
    "/ratings/distribution",
    "/openapi.json",
    "/",
    "/docs/docs.js",
    "/site/board.js",
    "/metrics",
]
SHORT = ["/leaderboard?limit=1", "/users/m1/neighbors?radius=1", "/users/search?username=nobody", "/users/m1/history"]
NEVER = ["/users/m1", "/users/m1/rank", "/ratings/1500", "/health", "/health/live", "/nowhere"]
OWN = {"date", "x-request-id", "x-mirror-lag-ms"}


@pytest.fixture(scope="module", autouse=True)
def _many(service: Service) -> None:
    """Sixty users, which make a page of several KiB."""
    service.execute(
        "INSERT INTO users (id, username, rating) SELECT 'm' || n, 'many' || n, 1000 + n FROM generate_series(1, 60) n"
    )
    wait_until(service.is_mirrored)


def get(service: Service, target: str, *headers: tuple[str, str], method: str = "GET") -> Reply:
    """The answer, its body as it came."""
    return service.raw(request(method, target, headers))


def tag(reply: Reply) -> str:
    return reply.headers.get("etag", "")


@pytest.mark.parametrize("way", [(), (LONG_WAY,)], ids=["fast", "long"])
@pytest.mark.parametrize("target", LONG)
def test_a_long_answer_comes_in_gzip_if_that_is_accepted(
    service: Service, target: str, way: tuple[tuple[str, str], ...]
) -> None:
    """It says the same, in less; both answers say what they depend on."""
    plain, packed = get(service, target, *way), get(service, target, GZIP, *way)

    assert (200, 200) == (plain.status, packed.status)
    assert "content-encoding" not in plain.headers
    assert "gzip" == packed.headers["content-encoding"]
    # What /metrics answers depends on Accept, too.
    assert packed.headers["vary"] == plain.headers["vary"] == ("Accept, " * (target == "/metrics")) + "Accept-Encoding"
    assert len(packed.body) < len(plain.body) > MIN_BYTES
    assert (str(len(packed.body)), str(len(plain.body))) == (
        packed.headers["content-length"], plain.headers["content-length"],
    )  # fmt: skip
    # What is counted, and how many streams there are, changes from one to the other.
    if target != "/metrics":
        assert plain.body == gzip.decompress(packed.body)
    assert set(plain.headers) | {"content-encoding"} == set(packed.headers)


@pytest.mark.parametrize("target", LONG)
def test_head_tells_of_the_same_coding(service: Service, target: str) -> None:
    """And of the length of what GET would send."""
    head = get(service, target, GZIP, method="HEAD")

    assert ("gzip", b"") == (head.headers["content-encoding"], head.body)
    assert head.headers["vary"].endswith("Accept-Encoding")
    if target != "/metrics":
        full = get(service, target, GZIP).headers
        assert {**full, **dict.fromkeys(OWN)} == {**head.headers, **dict.fromkeys(OWN)}


@pytest.mark.parametrize(
    "coding", ["", "identity", "br, zstd", "gzip;q=0, *", "identity, gzip;q=0.5", "*;q=0", "gzip;q=2"]
)
@pytest.mark.parametrize("target", ["/leaderboard?limit=60", "/users/search?username=many", "/openapi.json"])
def test_an_answer_stays_as_it_is_without_acceptance(service: Service, target: str, coding: str) -> None:
    """Not named, excluded, liked less, or malformed."""
    answer = get(service, target, ("Accept-Encoding", coding))

    assert "content-encoding" not in answer.headers
    assert get(service, target).body == answer.body
    assert "Accept-Encoding" == answer.headers["vary"]


@pytest.mark.parametrize("way", [(), (LONG_WAY,)], ids=["fast", "long"])
@pytest.mark.parametrize("target", SHORT)
def test_a_short_answer_of_a_long_route_says_what_it_depends_on(
    service: Service, target: str, way: tuple[tuple[str, str], ...]
) -> None:
    """Another time it may be longer."""
    answer = get(service, target, GZIP, *way)

    assert (200, "Accept-Encoding") == (answer.status, answer.headers["vary"])
    assert "content-encoding" not in answer.headers
    assert len(answer.body) <= MIN_BYTES


@pytest.mark.parametrize("way", [(), (LONG_WAY,)], ids=["fast", "long"])
@pytest.mark.parametrize("target", NEVER)
def test_what_is_never_long_bears_nothing(service: Service, target: str, way: tuple[tuple[str, str], ...]) -> None:
    answer = get(service, target, GZIP, *way)

    assert not {"vary", "content-encoding"} & set(answer.headers)


def test_lists_and_writes_are_compressed_too(service: Service) -> None:
    """By POST and PUT."""
    ids = [f"m{number}" for number in range(1, 61)]
    listed, updated = (
        service.raw(request(method, target, [JSON, GZIP], body))
        for method, target, body in (
            ("POST", "/ranks", b'{"user_ids":["%b"]}' % '","'.join(ids).encode()),
            ("PUT", "/ratings", b'{"updates":[%b]}' % b",".join(b'{"id":"%b","rating":1500}' % each.encode() for each in ids)),
        )
    )  # fmt: skip
    for answer in (listed, updated):
        assert (200, "gzip", "Accept-Encoding") == (
            answer.status, answer.headers["content-encoding"], answer.headers["vary"],
        )  # fmt: skip
        items: Any = Reply(200, {}, gzip.decompress(answer.body)).json()["items"]
        assert ids == [item["id"] for item in items]


def test_a_long_problem_is_compressed(service: Service) -> None:
    """And is the same document."""
    target = "/leaderboard?" + "&".join(f"{'x' * 80}{number}=1" for number in range(20))
    packed = get(service, target, GZIP)

    assert ("gzip", "Accept-Encoding") == (packed.headers["content-encoding"], packed.headers["vary"])
    assert_problem(Reply(packed.status, packed.headers, gzip.decompress(packed.body)), "validation")
    assert get(service, target).body == gzip.decompress(packed.body)


@pytest.mark.parametrize("way", [JSON, ("Content-Type", "application/json; charset=utf-8")], ids=["fast", "long"])
@pytest.mark.parametrize(("method", "target"), [("PUT", "/users/m1/rating"), ("POST", "/ranks"), ("PUT", "/ratings")])
def test_a_long_refusal_of_a_body_is_compressed(
    service: Service, method: str, target: str, way: tuple[str, str]
) -> None:
    """It quotes the name of an unknown field; it is the same whichever way the request took."""
    body = b'{"%b":1}' % (b"x" * 2000)
    plain, packed = (service.raw(request(method, target, [way, *more], body)) for more in ([], [GZIP]))

    assert_problem(plain, "validation", "x" * 2000)
    assert "content-encoding" not in plain.headers
    assert "Accept-Encoding" == plain.headers["vary"] == packed.headers["vary"]
    assert plain.body == gzip.decompress(packed.body)


def test_the_stream_is_never_compressed(service: Service) -> None:
    """An event would wait for others."""
    with listening(service, Accept_Encoding="gzip, br, *") as stream:
        assert stream.event().page["items"]
        assert not {"content-encoding", "vary"} & {name.lower() for name in stream.headers}


# Tags


@pytest.mark.parametrize("target", ["/openapi.json", "/", "/docs/docs.css", "/site/board.js"])
def test_each_coding_of_a_file_has_a_tag_of_its_own(service: Service, target: str) -> None:
    """Both are strong, and either is known again by a client that accepts either; a 304 names the one it knows."""
    plain, packed = get(service, target), get(service, target, GZIP)
    tags = [tag(plain), tag(packed)]

    assert len(set(tags)) == 2
    for known in tags:
        assert known.startswith('"')
        for headers in ([], [GZIP]):
            for line in (known, f"W/{known}", f'"x", {known}'):
                again = get(service, target, ("If-None-Match", line), *headers)
                assert (304, b"", known, "Accept-Encoding") == (
                    again.status,
                    again.body,
                    tag(again),
                    again.headers["vary"],
                )
                assert "content-encoding" not in again.headers
    both = ", ".join(tags)
    assert [tags[0], tags[1]] == [tag(get(service, target, ("If-None-Match", both), *more)) for more in ([], [GZIP])]
    assert 200 == get(service, target, GZIP, ("If-None-Match", f'{tags[0][:-1]}-br"')).status


def test_the_tag_of_a_user_is_strong_for_whoever_accepts_gzip(service: Service) -> None:
    """The longest user is below the limit, so the tag is the one that If-Match takes."""
    user_id, username = "i" * 64, "u" * 32
    service.created(username, id=user_id, rating=5000)
    wait_until(service.is_mirrored)
    for headers in ([GZIP], [("Accept-Encoding", "gzip"), LONG_WAY]):
        shown = get(service, f"/users/{user_id}", *headers)
        assert len(shown.body) < MIN_BYTES / 2
        body = b'{"rating":%d}' % (5000 - len(headers))
        condition = [JSON, GZIP, ("If-Match", tag(shown)), ("If-None-Match", '"x"')]
        changed = service.raw(request("PUT", f"/users/{user_id}/rating", condition, body))
        assert (200, False) == (changed.status, "content-encoding" in changed.headers)
        assert (
            304
            == get(service, f"/users/{user_id}", GZIP, ("If-None-Match", tag(get(service, f"/users/{user_id}")))).status
        )
