"""PUT /users/{id}/rating: what the contract says of a changed rating."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from service.model import UserId
from tests.ranking.model import board

from .serving import Service, wait_until
from .shapes import RATED, USER, assert_problem, fresh_name, moment
from .wire import request


def place(service: Service, user_id: object) -> tuple[int, int]:
    """Rank and position of a user, by the model over what Postgres holds."""
    return next((row.rank, row.position) for row in board(service.rows()) if row.id == UserId(str(user_id)))


def test_a_new_rating_answers_with_the_user_before_and_after(service: Service) -> None:
    """200, the user's fields and the two previous ones in their order, the new tag, and what the mirror did."""
    user = service.created(fresh_name(), rating=1100)
    rank_before, _ = place(service, user["id"])
    answer = service.put(str(user["id"]), 1900)
    changed = answer.json()

    assert 200 == answer.status_code
    assert "application/json" == answer.headers["content-type"]
    assert RATED == list(changed)
    assert (user["id"], user["username"], 1900) == (changed["id"], changed["username"], changed["rating"])
    assert place(service, user["id"]) == (changed["rank"], changed["position"])
    assert (1100, rank_before) == (changed["previous_rating"], changed["previous_rank"])
    assert f'"v{changed["version"]}"' == answer.headers["etag"]
    assert "applied" == answer.headers["x-mirror-write"]


def test_a_new_rating_is_seen_by_the_next_read(service: Service) -> None:
    """Whoever reads after the answer reads what the answer said."""
    user_id = str(service.created(fresh_name())["id"])
    changed = service.put(user_id, 1901).json()
    read = service.get(f"/users/{user_id}").json()

    assert {field: changed[field] for field in USER} == read


def test_a_change_moves_the_version_and_the_time_of_update(service: Service) -> None:
    """The version grows with every change; the time of creation stays."""
    user = service.created(fresh_name())
    first = service.put(str(user["id"]), 1200).json()
    second = service.put(str(user["id"]), 1300).json()

    versions = [user["version"], first["version"], second["version"]]
    assert sorted(set(versions)) == versions
    assert user["created_at"] == first["created_at"] == second["created_at"]
    assert moment(user["updated_at"]) < moment(first["updated_at"]) < moment(second["updated_at"])


@pytest.mark.parametrize("rating", [100, 101, 4999, 5000])
def test_ratings_reach_from_100_to_5000(service: Service, rating: int) -> None:
    user_id = str(service.created(fresh_name())["id"])

    assert rating == service.put(user_id, rating).json()["rating"]


@pytest.mark.parametrize("rating", [99, 5001])
def test_a_rating_out_of_range_changes_nothing(service: Service, rating: int) -> None:
    user = service.created(fresh_name())
    answer = service.put(str(user["id"]), rating)

    assert_problem(answer, "validation", "rating")
    assert user == service.get(f"/users/{user['id']}").json()


def test_an_equal_rating_changes_nothing(service: Service) -> None:
    """200 with the user as they were: the version grows with a change, and this is none."""
    user = service.created(fresh_name(), rating=1450)
    tag = service.get(f"/users/{user['id']}").headers["etag"]
    answer = service.put(str(user["id"]), 1450)

    assert 200 == answer.status_code
    assert {**user, "previous_rating": 1450, "previous_rank": user["rank"]} == answer.json()
    assert f'"v{user["version"]}"' == answer.headers["etag"]
    assert tag == service.get(f"/users/{user['id']}").headers["etag"]


def test_every_answer_ranks_as_the_model_does(service: Service) -> None:
    """Up, down, into a tie, out of it, to both ends: rank, position and previous rank are exact after each step."""
    ids = [str(service.created(fresh_name("mover"), rating=3000 + number % 3)["id"]) for number in range(6)]
    steps = [
        (0, 3002),
        (1, 2999),
        (5, 5000),
        (0, 100),
        (2, 3001),
        (2, 3000),
        (3, 5000),
        (5, 3000),
        (4, 3001),
        (0, 3000),
    ]
    for index, rating in steps:
        rank_before, _ = place(service, ids[index])
        changed = service.put(ids[index], rating).json()

        assert place(service, ids[index]) == (changed["rank"], changed["position"])
        assert rank_before == changed["previous_rank"]


def test_the_previous_rank_is_that_of_the_moment_of_the_change(service: Service) -> None:
    """Not that of the user's own last write: somebody may have overtaken them since."""
    user = service.created(fresh_name(), rating=4000)
    service.created(fresh_name(), rating=4001)
    changed = service.put(str(user["id"]), 4000 - 1).json()

    assert int(str(user["rank"])) + 1 == changed["previous_rank"]


@pytest.mark.parametrize("user_id", ["nobody", "search", "a" * 64, "-"])
def test_somebody_who_does_not_exist_is_not_found(service: Service, user_id: str) -> None:
    """And nobody comes into being."""
    before = service.rows()

    assert_problem(service.put(user_id, 1500), "not-found")
    assert before == service.rows()


# If-Match


def test_a_matching_version_is_changed(service: Service) -> None:
    """The tag of a creation, of a change and of a look-up all name the version that may be changed."""
    created = service.post({"username": fresh_name()})
    target = created.headers["location"].removeprefix("/users/")
    first = service.put(target, 1600, If_Match=created.headers["etag"])
    second = service.put(target, 1601, If_Match=first.headers["etag"])
    third = service.put(target, 1602, If_Match=service.get(f"/users/{target}").headers["etag"])

    assert [200, 200, 200] == [answer.status_code for answer in (first, second, third)]
    assert 1602 == service.get(f"/users/{target}").json()["rating"]


def test_any_version_is_changed_when_any_may_be(service: Service) -> None:
    user_id = str(service.created(fresh_name())["id"])

    assert 200 == service.put(user_id, 1600, If_Match="*").status_code


@pytest.mark.parametrize("rating", [1000, 1600])
def test_a_version_that_has_passed_is_refused(service: Service, rating: int) -> None:
    """412, and nothing changes: neither with a new rating nor with the one that the user has."""
    created = service.post({"username": fresh_name(), "rating": 1000})
    user_id = created.json()["id"]
    service.put(user_id, 1001)
    current = service.put(user_id, 1000)
    answer = service.put(user_id, rating, If_Match=created.headers["etag"])

    assert_problem(answer, "precondition-failed")
    assert {field: current.json()[field] for field in USER} == service.get(f"/users/{user_id}").json()


@pytest.mark.parametrize(
    "header", ['"v0"', '"v999999999999999"', '"v{other}"', 'W/"v{own}"', '"V{own}"', '"{own}"', '""']
)
def test_a_version_that_is_not_the_users_is_refused(service: Service, header: str) -> None:
    """Of somebody else, of the future, weak, or no version at all: none of these is a match."""
    user, other = service.created(fresh_name()), service.created(fresh_name())
    before = service.rows()
    answer = service.put(str(user["id"]), 1600, If_Match=header.format(own=user["version"], other=other["version"]))

    assert_problem(answer, "precondition-failed")
    assert before == service.rows()


def test_tags_are_compared_character_by_character(service: Service) -> None:
    """A tag is opaque: one that was never given out matches nothing, even if it reads like the same number."""
    user = service.created(fresh_name())

    assert_problem(service.put(str(user["id"]), 1600, If_Match=f'"v0{user["version"]}"'), "precondition-failed")


@pytest.mark.parametrize("other", ['"v1"', 'W/"v1"', '"x"', '"v1-1-1", "v2"', ","])
def test_one_tag_of_a_list_must_match(service: Service, other: str) -> None:
    """At either end of the list, in one line or two; without it nothing changes."""
    user_id = str(service.created(fresh_name(), rating=1500)["id"])
    for order in (1, -1):
        own = service.get(f"/users/{user_id}").headers["etag"]
        assert 200 == service.put(user_id, 1600 + order, If_Match=", ".join([other, own][::order])).status_code
        own = service.get(f"/users/{user_id}").headers["etag"]
        lines = [("If-Match", other), ("If-Match", own)][::order]
        sent = request(
            "PUT", f"/users/{user_id}/rating", [("Content-Type", "application/json"), *lines], b'{"rating":1700}'
        )
        assert 200 == service.raw(sent).status
    if other != ",":
        assert_problem(service.put(user_id, 1800, If_Match=f"{other}, {other}"), "precondition-failed")
    assert 1700 == service.get(f"/users/{user_id}").json()["rating"]


def test_the_tag_of_a_look_up_matches_while_only_the_place_has_changed(service: Service) -> None:
    """Its version is compared; rank and position are not the user's own."""
    user_id = str(service.created(fresh_name(), rating=1500)["id"])
    tag = service.get(f"/users/{user_id}").headers["etag"]
    service.created(fresh_name(), rating=4900)
    wait_until(lambda: service.get(f"/users/{user_id}").headers["etag"] != tag)

    assert 200 == service.put(user_id, 1600, If_Match=tag).status_code


def test_a_refusal_of_a_weak_tag_claims_no_change(service: Service) -> None:
    """A compressing proxy makes tags weak: what is wrong is the tag, not the user."""
    user = service.created(fresh_name())
    answer = service.put(str(user["id"]), 1600, If_Match=f'W/"v{user["version"]}"')

    assert_problem(answer, "precondition-failed")
    assert "weak" in answer.json()["detail"]
    assert "changed" not in answer.json()["title"] + answer.json()["detail"]


def test_a_version_of_nobody_is_not_found(service: Service) -> None:
    assert_problem(service.put("nobody", 1500, If_Match='"v1"'), "not-found")


def test_of_writers_who_saw_the_same_version_one_wins(service: Service) -> None:
    """Ten at once: one 200, nine 412, and the rating is the winner's."""
    created = service.post({"username": fresh_name()})
    user_id = created.json()["id"]
    with ThreadPoolExecutor(10) as pool:
        answers = list(
            pool.map(lambda number: service.put(user_id, 1600 + number, If_Match=created.headers["etag"]), range(10))
        )

    assert [200] + [412] * 9 == sorted(answer.status_code for answer in answers)
    (winner,) = (answer.json() for answer in answers if answer.status_code == 200)
    assert winner["rating"] == service.get(f"/users/{user_id}").json()["rating"]
