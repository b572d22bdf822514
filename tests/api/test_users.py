"""POST /users and GET /users/{id}: what the contract says of creating and looking up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from service.model import UserId
from tests.ranking.model import board

from .serving import Service
from .shapes import USER, assert_problem, assert_ranked_by, fresh_name, moment, uuid7_millis, wire_row
from .wire import request


def test_creating_answers_with_the_user_and_where_they_are(service: Service) -> None:
    """201, the documented fields in their order, and headers that name the address, the version, and the mirror."""
    name = fresh_name()
    answer = service.post({"username": name, "rating": 1234})
    user = answer.json()

    assert 201 == answer.status_code
    assert "application/json" == answer.headers["content-type"]
    assert USER == list(user)
    assert (name, 1234) == (user["username"], user["rating"])
    assert f"/users/{user['id']}" == answer.headers["location"]
    assert f'"v{user["version"]}"' == answer.headers["etag"]
    assert "applied" == answer.headers["x-mirror-write"]


def test_a_new_user_can_be_looked_up_at_once(service: Service) -> None:
    """The address in Location answers with the very user that was created."""
    created = service.post({"username": fresh_name(), "rating": 2000})
    answer = service.get(created.headers["location"])

    assert 200 == answer.status_code
    assert "application/json" == answer.headers["content-type"]
    assert USER == list(answer.json())
    assert created.json() == answer.json()
    assert_ranked_by("redis", answer.headers)


def test_a_rating_that_is_not_given_is_1000(service: Service) -> None:
    assert 1000 == service.created(fresh_name())["rating"]


@pytest.mark.parametrize("rating", [100, 101, 4999, 5000])
def test_ratings_reach_from_100_to_5000(service: Service, rating: int) -> None:
    assert rating == service.created(fresh_name(), rating=rating)["rating"]


@pytest.mark.parametrize("rating", [99, 5001])
def test_a_rating_out_of_range_is_refused(service: Service, rating: int) -> None:
    before = service.count()
    answer = service.post({"username": fresh_name(), "rating": rating})

    assert_problem(answer, "validation", "rating")
    assert before == service.count()


@pytest.mark.parametrize(
    "username",
    [
        "abc",
        "ABC-1",
        "a" * 32,
        "Z" * 31 + "9",
        "...",
        "---",
        "___",
        "-a_",
        ".hidden",
        "007",
        "null",
        "select",
        "a.b-c_d",
    ],
)
def test_usernames_of_the_alphabet_are_shown_as_given(service: Service, username: str) -> None:
    """3 to 32 letters, digits, dots, dashes and underscores, in any place."""
    user = service.created(username)

    assert username == user["username"]
    assert username == service.get(f"/users/{user['id']}").json()["username"]


@pytest.mark.parametrize("other", ["magnus", "MAGNUS", "Magnus"])
def test_a_username_is_taken_in_every_case(service: Service, other: str) -> None:
    """Names are unique without regard to case, and a refused one changes nothing."""
    if not service.get("/users/search?username=mAGNUS").json()["items"]:
        service.created("mAGNUS")
    before = service.rows()
    answer = service.post({"username": other, "rating": 3000})

    assert_problem(answer, "username-taken")
    assert before == service.rows()


def test_an_id_that_is_taken_is_refused(service: Service) -> None:
    """409, and the user who has it stays as they were."""
    user = service.created(fresh_name(), id="taken")
    answer = service.post({"username": fresh_name(), "rating": 3000, "id": "taken"})

    assert_problem(answer, "id-taken")
    assert user == service.get("/users/taken").json()


def test_an_id_and_a_name_that_are_both_taken_are_refused(service: Service) -> None:
    user = service.created(fresh_name(), id=fresh_name("both:"))
    answer = service.post({"username": user["username"], "id": user["id"]})

    assert_problem(answer, "id-taken")


def test_generated_ids_are_uuids_that_grow_with_time(service: Service) -> None:
    """Version 7, in canonical text, of the present millisecond."""
    begun = datetime.now(UTC).timestamp() * 1000
    first, second = (service.created(fresh_name()) for _ in range(2))
    ended = datetime.now(UTC).timestamp() * 1000

    assert int(begun) <= uuid7_millis(first["id"]) <= uuid7_millis(second["id"]) <= ended
    assert first["id"] != second["id"]


@pytest.mark.parametrize(
    "user_id",
    ["x", "0", "a" * 64, "-", "_", ":", "a:b", "-.:_", "Search", "search.", "rating", "null", "007", "00000000-0000"],
)
def test_clients_may_choose_ids(service: Service, user_id: str) -> None:
    """1 to 64 characters of the alphabet, the odd ones in any place; only `search` is not allowed."""
    answer = service.post({"username": fresh_name(), "id": user_id})

    assert (201, user_id) == (answer.status_code, answer.json()["id"])
    assert f"/users/{user_id}" == answer.headers["location"]
    assert answer.json() == service.get(f"/users/{user_id}").json()


def test_ids_differ_by_case(service: Service) -> None:
    """An id is opaque; only usernames ignore case."""
    lower, upper = service.created(fresh_name(), id="case"), service.created(fresh_name(), id="CASE")

    assert lower == {**service.get("/users/case").json(), "rank": lower["rank"], "position": lower["position"]}
    assert upper == service.get("/users/CASE").json()


def test_the_id_search_is_a_route(service: Service) -> None:
    assert_problem(service.post({"username": fresh_name(), "id": "search"}), "validation", "id")


def test_timestamps_are_rfc_3339_in_utc(service: Service) -> None:
    """A new user was created and updated just now, at one moment."""
    # The clocks are Postgres's and ours; on one machine they are the same.
    slack = timedelta(seconds=2)
    begun = datetime.now(UTC)
    user = service.created(fresh_name())
    ended = datetime.now(UTC)

    assert begun - slack <= moment(user["created_at"]) <= ended + slack
    assert user["created_at"] == user["updated_at"]


def test_rank_and_position_are_those_of_the_order(service: Service) -> None:
    """Equal ratings share a rank; positions go by rating, then by the bytes of the name: `-` `.` `0` `A` `_` `a`."""
    names = ["tie_", "tie-", "tie.", "tie0", "tieA", "tieb", "TIEC", "Tie"]
    users = [service.created(name, rating=1777) for name in names] + [service.created("tied", rating=1778)]
    modelled = {row.id: (row.rank, row.position) for row in board(service.rows())}
    shown = {user["id"]: service.get(f"/users/{user['id']}").json() for user in users}

    assert all(modelled[UserId(str(key))] == (user["rank"], user["position"]) for key, user in shown.items())
    tied = sorted((shown[user["id"]] for user in users[:-1]), key=lambda user: int(user["position"]))
    assert sorted(names, key=str.encode) == [user["username"] for user in tied]
    assert 1 == len({user["rank"] for user in tied})
    assert list(range(tied[0]["rank"], tied[0]["rank"] + len(tied))) == [user["position"] for user in tied]


def test_a_new_user_is_told_their_place(service: Service) -> None:
    """The answer to a creation ranks among those who were there, ties included."""
    service.created(fresh_name(), rating=4321)
    user = service.created(fresh_name(), rating=4321)
    (expected,) = (wire_row(row) for row in board(service.rows()) if row.id == user["id"])

    assert expected == {field: user[field] for field in expected}


def test_somebody_who_does_not_exist_is_not_found(service: Service) -> None:
    assert_problem(service.get("/users/nobody"), "not-found")


def test_a_percent_encoded_id_is_the_id(service: Service) -> None:
    """`%3A` is a colon, `%61` an a: an address has many spellings."""
    user = service.created(fresh_name(), id="a:b.c")

    for spelling in ("a%3Ab.c", "%61%3a%62%2E%63"):
        assert user == service.raw(request("GET", f"/users/{spelling}")).json()


@pytest.mark.parametrize(
    "target", ["/users/%2Fslash", "/users/slash%2F", "/users/%2Fslash/rating", "/users/slash%2Frating"]
)
def test_an_encoded_slash_is_part_of_the_id(service: Service, target: str) -> None:
    """No user has such an id, so it must not lead to one who has another."""
    service.post({"username": "slash", "id": "slash", "rating": 1000})
    before = service.rows()
    method, body = ("PUT", b'{"rating":2000}') if target.endswith("rating") else ("GET", None)
    answer = service.raw(request(method, target, [("Content-Type", "application/json")], body))

    assert answer.status in (400, 404)
    assert before == service.rows()


# Entity tags


def test_the_tag_stays_while_nothing_changes(service: Service) -> None:
    """The same user at the same place has the same tag, and whoever knows it is told so without a body."""
    user = service.created(fresh_name())
    first, second = service.get(f"/users/{user['id']}"), service.get(f"/users/{user['id']}")
    answer = service.get(f"/users/{user['id']}", If_None_Match=first.headers["etag"])

    assert first.headers["etag"] == second.headers["etag"]
    assert (304, b"") == (answer.status_code, answer.content)
    assert first.headers["etag"] == answer.headers["etag"]
    assert_ranked_by("redis", answer.headers)


def test_the_tag_changes_when_only_the_rank_does(service: Service) -> None:
    """Somebody else overtakes: the user is as before, but a 304 would hide the new rank."""
    user = service.created(fresh_name(), rating=2500)
    before = service.get(f"/users/{user['id']}")
    service.created(fresh_name(), rating=2501)
    after = service.get(f"/users/{user['id']}", If_None_Match=before.headers["etag"])

    assert 200 == after.status_code
    assert before.headers["etag"] != after.headers["etag"]
    assert (
        before.json() | {"rank": before.json()["rank"] + 1, "position": before.json()["position"] + 1} == after.json()
    )


def test_the_tag_changes_when_only_the_position_does(service: Service) -> None:
    """Somebody with the same rating and an earlier name joins: same rank, another position."""
    user = service.created("zz-last", rating=2600)
    before = service.get(f"/users/{user['id']}")
    service.created("aa-first", rating=2600)
    after = service.get(f"/users/{user['id']}", If_None_Match=before.headers["etag"])

    assert 200 == after.status_code
    assert before.json() | {"position": before.json()["position"] + 1} == after.json()


def test_the_tag_changes_with_the_rating(service: Service) -> None:
    user = service.created(fresh_name(), rating=2700)
    before = service.get(f"/users/{user['id']}")
    service.put(str(user["id"]), 2701)
    after = service.get(f"/users/{user['id']}", If_None_Match=before.headers["etag"])

    assert (200, 2701) == (after.status_code, after.json()["rating"])


def test_the_tag_is_the_same_again_when_the_rank_is(service: Service) -> None:
    """Somebody below moves: neither rank nor position changes, and 304 is still right."""
    user, other = service.created(fresh_name(), rating=2800), service.created(fresh_name(), rating=150)
    tag = service.get(f"/users/{user['id']}").headers["etag"]
    service.put(str(other["id"]), 151)

    assert 304 == service.get(f"/users/{user['id']}", If_None_Match=tag).status_code


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("{tag}", 304),
        ("W/{tag}", 304),
        ("*", 304),
        ('"other", {tag}', 304),
        ('"with, comma",{tag} , "more"', 304),
        ('"other"', 200),
        ('W/"other", "another"', 200),
        ("{bare}", 200),
        ('"{bare} "', 200),
        ("", 200),
        ("'", 200),
    ],
)
def test_if_none_match_names_tags(service: Service, header: str, status: int) -> None:
    """A list, weak or strong, or any; what is not a list of tags matches nothing."""
    user_id = service.created(fresh_name())["id"]
    tag = service.get(f"/users/{user_id}").headers["etag"]
    answer = service.get(f"/users/{user_id}", If_None_Match=header.format(tag=tag, bare=tag.strip('"')))

    assert status == answer.status_code
    assert (status == 304) == (answer.content == b"")


def test_if_none_match_may_be_given_in_two_lines(service: Service) -> None:
    """Two lines of a header are one list."""
    user_id = service.created(fresh_name())["id"]
    tag = service.get(f"/users/{user_id}").headers["etag"]
    answer = service.raw(request("GET", f"/users/{user_id}", [("If-None-Match", '"x"'), ("If-None-Match", tag)]))

    assert 304 == answer.status


def test_versions_are_whole_numbers_that_differ(service: Service) -> None:
    first, second = service.created(fresh_name()), service.created(fresh_name())

    assert isinstance(first["version"], int)
    assert first["version"] != second["version"]
