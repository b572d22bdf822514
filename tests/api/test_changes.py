"""Add to a rating, set many, rename, delete: what the contract says of each, against the real service."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import redis

from .serving import Service, wait_until
from .shapes import RATED, USER, assert_problem, fresh_name


def ask(service: Service, method: str, target: str, body: object = None, **headers: str) -> httpx.Response:
    """Answer of any method; `if_match` becomes the header `If-Match`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.client.request(method, target, json=body, headers=named)


def user(service: Service, **fields: object) -> dict[str, Any]:
    """A new user."""
    return service.created(fresh_name("changed"), **fields)


# Adding to a rating


def test_a_delta_is_added_and_answered_as_a_rating_is(service: Service) -> None:
    """The user before and after, and the next read sees it."""
    ada = user(service, rating=1500)
    answer = ask(service, "PATCH", f"/users/{ada['id']}/rating", {"delta": -12})
    changed = answer.json()

    assert (200, RATED, "applied") == (answer.status_code, list(changed), answer.headers["x-mirror-write"])
    assert (1488, 1500, ada["rank"]) == (changed["rating"], changed["previous_rating"], changed["previous_rank"])
    assert f'"v{changed["version"]}"' == answer.headers["etag"]
    assert {field: changed[field] for field in USER} == service.get(f"/users/{ada['id']}").json()


def test_a_delta_of_nothing_changes_nothing(service: Service) -> None:
    """Not even the version."""
    ada = user(service)

    assert ada["version"] == ask(service, "PATCH", f"/users/{ada['id']}/rating", {"delta": 0}).json()["version"]


@pytest.mark.parametrize(
    ("rating", "delta"), [(100, -1), (5000, 1), (1000, 2**31 - 1), (1000, -(2**63)), (1000, 10**30)]
)
def test_a_delta_that_leads_out_of_range_is_refused(service: Service, rating: int, delta: int) -> None:
    """409, and the user stays as they are."""
    ada = user(service, rating=rating)
    before = service.rows()

    assert_problem(ask(service, "PATCH", f"/users/{ada['id']}/rating", {"delta": delta}), "rating-out-of-range")
    assert before == service.rows()


def test_concurrent_deltas_all_count(service: Service) -> None:
    """Forty at once to one user: none is lost."""
    target = f"/users/{user(service, rating=2000)['id']}/rating"
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda delta: ask(service, "PATCH", target, {"delta": delta}), range(40)))

    assert [200] * 40 == [answer.status_code for answer in answers]
    assert 2000 + sum(range(40)) == ask(service, "PATCH", target, {"delta": 0}).json()["rating"]
    for answer, delta in zip(answers, range(40), strict=True):
        assert answer.json()["previous_rating"] + delta == answer.json()["rating"]


# If-Match

CHANGES: list[tuple[str, str, object]] = [
    ("PATCH", "/rating", {"delta": 5}),
    ("PATCH", "", {"username": "renamed-by-version"}),
    ("DELETE", "", None),
]


@pytest.mark.parametrize(("method", "tail", "body"), CHANGES)
def test_only_the_wanted_version_is_changed(service: Service, method: str, tail: str, body: object) -> None:
    """412 for one that has passed, a weak or a made-up one, and nothing changes; 2xx for the one it is."""
    ada = user(service)
    target = f"/users/{ada['id']}{tail}"
    version = service.put(ada["id"], 1234).headers["etag"]
    before = service.rows()
    for tag in (f'"v{ada["version"]}"', f"W/{version}", '"x"'):
        assert_problem(ask(service, method, target, body, If_Match=tag), "precondition-failed")
    assert_problem(ask(service, method, target, body, If_Match="v1"), "validation", "If-Match")
    assert before == service.rows()
    assert ask(service, method, target, body, If_Match=f'"v{ada["version"]}", {version}').is_success


@pytest.mark.parametrize(("method", "tail", "body"), CHANGES)
def test_nobody_is_not_found(service: Service, method: str, tail: str, body: object) -> None:
    """With a version and without."""
    assert_problem(ask(service, method, f"/users/nobody{tail}", body), "not-found")
    assert_problem(ask(service, method, f"/users/nobody{tail}", body, If_Match='"v1"'), "not-found")


# A new name


def test_a_renamed_user_is_found_by_the_new_name_alone(service: Service) -> None:
    """The place among equals is the new name's; the old name is free."""
    ada = user(service, rating=3333)
    name, other = fresh_name("renamed"), str(ada["username"])
    answer = ask(service, "PATCH", f"/users/{ada['id']}", {"username": name})
    shown = answer.json()

    assert (200, USER, name, "applied") == (
        answer.status_code, list(shown), shown["username"], answer.headers["x-mirror-write"],
    )  # fmt: skip
    assert shown == service.get(f"/users/{ada['id']}").json()
    assert [shown] == service.get(f"/users/search?username={name}").json()["items"]
    assert ada["id"] not in {found["id"] for found in service.get(f"/users/search?username={other}").json()["items"]}
    assert 201 == service.post({"username": other}).status_code
    wait_until(service.is_mirrored)


def test_a_name_may_change_its_case_and_may_stay(service: Service) -> None:
    """One's own name is nobody else's; the same name changes nothing."""
    ada = user(service)
    louder = str(ada["username"]).upper()
    changed = ask(service, "PATCH", f"/users/{ada['id']}", {"username": louder}).json()
    same = ask(service, "PATCH", f"/users/{ada['id']}", {"username": louder}).json()

    assert (louder, changed["version"]) == (changed["username"], same["version"])


def test_a_taken_name_is_refused(service: Service) -> None:
    """In any case of its letters."""
    ada, eve = user(service), user(service)
    before = service.rows()

    assert_problem(
        ask(service, "PATCH", f"/users/{ada['id']}", {"username": str(eve["username"]).upper()}), "username-taken"
    )
    assert before == service.rows()


# Deletion


def test_a_deleted_user_is_gone_everywhere_at_once(service: Service) -> None:
    """From Postgres, the board, the cache; a read with the deletion's token is 404; name and id are free."""
    ada = user(service, rating=4999)
    service.get(f"/users/{ada['id']}")
    answer = ask(service, "DELETE", f"/users/{ada['id']}")

    assert (204, b"", "applied") == (answer.status_code, answer.content, answer.headers["x-mirror-write"])
    with redis.Redis.from_url(service.settings.redis_url) as client:
        assert not client.exists(f"user:{ada['id']}")
        assert client.hget("{ladder}:users", ada["id"]).endswith(b"|")
    token = answer.headers["x-consistency-token"]
    assert_problem(service.get(f"/users/{ada['id']}"), "not-found")
    assert_problem(service.get(f"/users/{ada['id']}", X_Consistency_Token=token), "not-found")
    page = service.get("/leaderboard?limit=1000", X_Consistency_Token=token)
    assert ada["id"] not in {row["id"] for row in page.json()["items"]}
    wait_until(service.is_mirrored)
    assert_problem(ask(service, "DELETE", f"/users/{ada['id']}"), "not-found")
    again = service.post({"username": ada["username"], "id": ada["id"]})
    assert (201, "applied") == (again.status_code, again.headers["x-mirror-write"])


# Many ratings


def test_many_ratings_are_set_at_once(service: Service) -> None:
    """In the request's order: changed, not changed, not there; every rank is that after all of them."""
    users = [user(service, rating=2500) for _ in range(3)]
    updates = [
        {"id": users[2]["id"], "rating": 2502},
        {"id": "nobody", "rating": 2500},
        {"id": users[0]["id"], "rating": 2500},
        {"id": users[1]["id"], "rating": 2501},
    ]
    answer = ask(service, "PUT", "/ratings", {"updates": updates})
    items = answer.json()["items"]

    assert (200, "applied") == (answer.status_code, answer.headers["x-mirror-write"])
    assert [update["id"] for update in updates] == [item["id"] for item in items]
    assert ["updated", "not_found", "unchanged", "updated"] == [item["status"] for item in items]
    for item in items:
        found = service.get(f"/users/{item['id']}")
        assert item["rank"] == (found.json()["rank"] if found.status_code == 200 else None)


def test_a_thousand_ratings_are_one_transaction(service: Service) -> None:
    """Each rank was counted after the last of them, and a body beyond 64 KiB is taken."""
    service.execute(
        "INSERT INTO users (id, username, rating)"
        " SELECT repeat('m', 40) || n, 'many-' || n, 1000 FROM generate_series(1, 1000) n"
    )
    updates: list[dict[str, Any]] = [{"id": f"{'m' * 40}{number}", "rating": 100 + number} for number in range(1, 1001)]
    answer = ask(service, "PUT", "/ratings", {"updates": updates})
    with_ranks = {item["id"]: item["rank"] for item in answer.json()["items"]}
    rows = service.rows()

    assert len(answer.request.content) > 64 * 1024
    assert {"updated"} == {item["status"] for item in answer.json()["items"]} - {"unchanged"}
    ratings = [user.rating for user in rows.values()]
    for update in updates[::100]:
        assert 1 + sum(rating > update["rating"] for rating in ratings) == with_ranks[update["id"]]
    service.execute("DELETE FROM users WHERE username LIKE 'many-%'")


BAD: list[tuple[str, str, object, str]] = [
    *(("PATCH", "/users/known/rating", body, field) for body, field in [
        ({}, "delta"), ({"delta": 1.0}, "delta"), ({"delta": "1"}, "delta"), ({"delta": True}, "delta"),
        ({"delta": None}, "delta"), ({"rating": 1}, "rating"), ([], "body"),
    ]),
    *(("PATCH", "/users/known", body, field) for body, field in [
        ({}, "username"), ({"username": "x"}, "username"), ({"username": "a b c"}, "username"), ({"username": 1}, "username"),
        ({"username": "fine", "rating": 1}, "rating"),
    ]),
    *(("PUT", "/ratings", body, field) for body, field in [
        ({}, "updates"), ({"updates": []}, "updates"), ({"updates": {}}, "updates"),
        ({"updates": [{"id": f"u{number}", "rating": 100} for number in range(1001)]}, "updates"),
        ({"updates": [{"id": "known", "rating": 1100}, {"id": "u", "rating": 99}]}, "updates[1].rating"),
        ({"updates": [{"id": "known", "rating": 1100}, {"id": "", "rating": 1000}]}, "updates[1].id"),
        ({"updates": [{"id": "known", "rating": 1100}, {"id": "u"}]}, "updates[1].rating"),
        ({"updates": [{"id": "known", "rating": 1100}, {"id": "u", "rating": 1000, "x": 1}]}, "updates[1].x"),
        ({"updates": [{"id": "known", "rating": 1100}, {"id": "known", "rating": 1100}]}, "updates[1].id"),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("method", "target", "body", "field"), BAD)
def test_what_is_malformed_changes_nothing(
    service: Service, method: str, target: str, body: object, field: str
) -> None:
    """400 for all of it, and the field is named."""
    if service.get("/users/known").status_code == 404:
        service.created("known", id="known", rating=1000)
    before = service.rows()

    assert_problem(ask(service, method, target, body), "validation", field)
    assert before == service.rows()


def test_more_than_a_mebibyte_is_too_large(service: Service) -> None:
    """And other routes still take 64 KiB at most."""
    # Who is refused before the body is read may find the connection closed: it is not one for the next request.
    headers = {"content-type": "application/json", "connection": "close"}
    for method, target, size in (("PUT", "/ratings", 2**20 + 1), ("PATCH", "/users/known", 2**16 + 1)):
        assert_problem(service.client.request(method, target, content=b" " * size, headers=headers), "too-large")
