"""GET /users/search: by the beginning of the name, whatever its case, and by nothing else."""

from __future__ import annotations

import pytest

from .serving import Service
from .shapes import USER, assert_problem, assert_ranked_by
from .wire import request

NAMES = [
    # Ordered by lower(username): `-` `.` digits `_` letters. Upper case would come before `_`.
    "lk-a", "lk.a", "lk0", "LK9", "lk_a", "lk__", "lka", "LKAb", "lKb", "lkZ", "lkz_", "lkzz",
    # What `lk_` would find too if `_` were a wildcard is above; these are beside the range.
    "lj_", "ll_", "alka", "xlk_a",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _people(service: Service) -> None:
    """The users to be found: a few by name, with ties and gaps, and a crowd of one prefix."""
    for number, name in enumerate(NAMES):
        service.created(name, rating=1500 + number % 3)
    for number in range(105):
        service.created(f"Crowd{number:03}" if number % 2 else f"crowd{number:03}", rating=1400 + number % 7)


def found(service: Service, **query: object) -> list[str]:
    """The names that a search finds, in its order."""
    answer = service.client.get("/users/search", params={name: str(value) for name, value in query.items()})
    assert 200 == answer.status_code, answer.text
    return [user["username"] for user in answer.json()["items"]]


def expected(prefix: str, limit: int = 20) -> list[str]:
    """The same, by the contract's words."""
    names = NAMES + [f"Crowd{number:03}" if number % 2 else f"crowd{number:03}" for number in range(105)]
    matching = [name for name in names if name.lower().startswith(prefix.lower())]
    return sorted(matching, key=str.lower)[:limit]


def test_found_users_are_shown_whole(service: Service) -> None:
    """Each as a look-up by id shows them, rank and all, in an object with `items` and nothing else."""
    answer = service.get("/users/search?username=lk")

    assert 200 == answer.status_code
    assert "application/json" == answer.headers["content-type"]
    assert ["items"] == list(answer.json())
    assert [USER] * 12 == [list(user) for user in answer.json()["items"]]
    assert [service.get(f"/users/{user['id']}").json() for user in answer.json()["items"]] == answer.json()["items"]
    assert_ranked_by("redis", answer.headers)


@pytest.mark.parametrize("prefix", ["nobody", "no%25body"])
def test_who_finds_nobody_is_told_what_would_have_ranked(service: Service, prefix: str) -> None:
    """A look for a name that nobody has is no sign that the mirror is away."""
    answer = service.get(f"/users/search?username={prefix}")

    assert (200, {"items": []}) == (answer.status_code, answer.json())
    assert_ranked_by("redis", answer.headers)


@pytest.mark.parametrize("prefix", ["lk", "LK", "lK", "l", "lka", "LKA", "lkab", "lkz", "alk", "lk_a", "crowd0", "a"])
def test_a_name_is_found_by_its_beginning_in_any_case(service: Service, prefix: str) -> None:
    """In the order of the lower-case names; not by its middle or its end."""
    assert expected(prefix)
    assert expected(prefix) == found(service, username=prefix)


def test_the_order_is_that_of_lower_case_names(service: Service) -> None:
    """Written out: `lkZ` is between `lKb` and `lkz_`, and `LK9` is before `lk_a`."""
    assert [
        "lk-a", "lk.a", "lk0", "LK9", "lk__", "lk_a", "lka", "LKAb", "lKb", "lkZ", "lkz_", "lkzz",
    ] == found(service, username="lk")  # fmt: skip


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("lk_", ["lk__", "lk_a"]),
        ("lk__", ["lk__"]),
        ("lk.", ["lk.a"]),
        ("lk-", ["lk-a"]),
        ("l_", []),
        ("_k", []),
        ("%", []),
        ("%k", []),
        ("l%", []),
        ("lk%a", []),
        ("\\", []),
        ("lk\\_", []),
        ("lk\\", []),
        ("lk*", []),
        ("lk?", []),
        ("lk[_]", []),
        ("^lk", []),
        ("lk$", []),
        (".*", []),
        ("lk.*", []),
    ],
)
def test_every_character_stands_for_itself(service: Service, prefix: str, names: list[str]) -> None:
    """`%`, `_` and the backslash are no wildcards, nor is anything else."""
    assert names == found(service, username=prefix)


@pytest.mark.parametrize(
    "prefix",
    [
        "nobodyhere",
        "lkzzz",
        "l" * 32,
        "l" * 33,
        "l" * 5000,
        "\u216ck",
        "lk\u0301",
        "\uff2c\uff2b",
        "\u017f",
        "\u212a",
        "\U0001f40e",
        " lk",
        "lk ",
        "lk\n",
    ],
)
def test_what_matches_nobody_is_an_empty_list(service: Service, prefix: str) -> None:
    """Longer than any name, of other letters (some of which fold to ours), with spaces: nobody is called so."""
    assert [] == found(service, username=prefix)


def test_twenty_are_found_unless_more_are_asked_for(service: Service) -> None:
    assert expected("crowd", 20) == found(service, username="crowd")


@pytest.mark.parametrize("limit", [1, 2, 99, 100])
def test_the_limit_reaches_from_1_to_100(service: Service, limit: int) -> None:
    """The first of the order, not any."""
    assert expected("crowd", limit) == found(service, username="crowd", limit=limit)


@pytest.mark.parametrize("limit", [0, 101, -1])
def test_a_limit_out_of_range_is_refused(service: Service, limit: int) -> None:
    assert_problem(service.get(f"/users/search?username=crowd&limit={limit}"), "validation", "limit")


@pytest.mark.parametrize("query", ["", "?", "?limit=5", "?username=", "?username", "?username=&limit=5"])
def test_a_search_for_nothing_is_refused(service: Service, query: str) -> None:
    assert_problem(service.get(f"/users/search{query}"), "validation", "username")


@pytest.mark.parametrize("target", ["/users/search?username=%6C%4b%5F", "/users/%73earch?%75sername=lk_"])
def test_percent_encoded_characters_are_the_characters(service: Service, target: str) -> None:
    answer = service.raw(request("GET", target))

    assert 200 == answer.status
    assert service.get("/users/search?username=lk_").json() == answer.json()


def test_a_plus_is_a_space(service: Service) -> None:
    """As in every form-encoded query; no name has either."""
    answer = service.raw(request("GET", "/users/search?username=lk+a"))

    assert (200, {"items": []}) == (answer.status, answer.json())


def test_a_new_rating_is_found_at_once(service: Service) -> None:
    """The rank beside a found user is that of now."""
    user = service.get("/users/search?username=alka").json()["items"][0]
    changed = service.put(user["id"], 4900).json()

    assert [{field: changed[field] for field in USER}] == service.get("/users/search?username=alka").json()["items"]
