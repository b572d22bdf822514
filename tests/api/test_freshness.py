"""What a reader can ask for beyond the address: not from before my write, and as fresh as can be."""

from __future__ import annotations

import pytest

from .serving import Service
from .shapes import assert_problem, fresh_name

READS = ["/users/{id}", "/users/search?username={name}", "/leaderboard?limit=1000"]


@pytest.mark.parametrize("read", READS)
def test_a_write_is_seen_with_its_token(service: Service, read: str) -> None:
    """The token of each kind of write, on each kind of read; the id may contain colons."""
    name, user_id = fresh_name(), fresh_name("id:with:colons")
    created = service.post({"username": name, "id": user_id, "rating": 1400})
    changed = service.put(user_id, 1401)
    for answer, rating in ((created, 1400), (changed, 1401)):
        shown = answer.json()
        token = answer.headers["x-consistency-token"]
        assert f"{user_id}:{shown['version']}" == token
        found = service.get(read.format(id=user_id, name=name), X_Consistency_Token=token).json()
        ratings = [row["rating"] for row in found.get("items", [found]) if row["id"] == user_id]

        assert rating <= ratings[0]


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("token", ["", "ada", "ada:", ":1", "ada:0", "ada:x", "ada:1,bob:2", "a b:1"])
def test_a_malformed_token_is_refused(service: Service, read: str, token: str) -> None:
    """Rather than passed over: its sender relies on it."""
    target = read.format(id=fresh_name("id"), name=fresh_name())

    assert_problem(service.get(target, X_Consistency_Token=token), "validation", "X-Consistency-Token")


@pytest.mark.parametrize("directives", ["no-cache", "max-age=0, No-Cache"])
def test_a_fresh_mirror_is_fresh_enough(service: Service, directives: str) -> None:
    """`no-cache` asks for more only when the mirror lags."""
    user_id = service.created(fresh_name())["id"]
    service.get(f"/users/{user_id}")

    assert 200 == service.get(f"/users/{user_id}", Cache_Control=directives).status_code


def test_health_tells_of_the_breaker_and_the_fallback(service: Service) -> None:
    health = service.get("/health").json()

    assert ("closed", 0) == (health["redis"]["breaker"], health["postgres"]["fallback_in_flight"])
