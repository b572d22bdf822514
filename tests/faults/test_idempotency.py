"""A write with an Idempotency-Key is carried out once, whatever is raced or dies in between; and Redis may be away."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from service.settings import Settings
from tests.api.serving import serving, wait_until
from tests.api.shapes import assert_problem, fresh_name
from tests.api.test_changes import ask, user
from tests.api.test_idempotency import told
from tests.servers.own_redis import own_redis

from .clients import insert


@pytest.mark.slow
def test_of_concurrent_requests_with_one_key_one_writes(settings: Settings) -> None:
    """Through two services at once, ten times: all get one answer, and the delta counts once."""
    with (
        serving(settings.database_url, settings.redis_url) as one,
        serving(settings.database_url, settings.redis_url) as other,
        ThreadPoolExecutor(16) as pool,
    ):
        wait_until(one.is_mirrored)
        wait_until(other.is_mirrored)
        ada = user(one, rating=1000)
        target = f"/users/{ada['id']}/rating"
        for number in range(1, 11):
            key = f"race-{number}"
            answers = list(
                pool.map(
                    lambda service: ask(service, "PATCH", target, {"delta": 1}, Idempotency_Key=key),  # noqa: B023
                    [one, other] * 8,
                )
            )
            assert 1 == len({answer.content for answer in answers}), {answer.text for answer in answers}
            assert 1000 + number == answers[0].json()["rating"]
            assert 1 == sum("idempotent-replayed" not in answer.headers for answer in answers)
            name = {"username": f"raced-{number}"}
            created = list(
                pool.map(
                    lambda service: ask(service, "POST", "/users", name, Idempotency_Key=f"c{key}"),  # noqa: B023
                    [one, other] * 8,
                )
            )
            assert {201} == {answer.status_code for answer in created}
            assert 1 == len({answer.json()["id"] for answer in created})
        assert 11 == one.count()


@pytest.mark.parametrize(
    ("point", "carried_out"),
    [
        pytest.param("before_commit", False, marks=pytest.mark.slow),
        ("after_commit", True),
        pytest.param("after_put", True, marks=pytest.mark.slow),
    ],
)
def test_a_request_cut_off_by_a_kill_is_safely_repeated(settings: Settings, point: str, *, carried_out: bool) -> None:
    """
    Its client gets no answer, and repeats it until it gets one: the delta counts once.

    If it had been carried out, the repetition says so, and brings the write to the mirror where that was left out.
    """
    (ada,) = insert(settings, 1)
    with serving(settings.database_url, settings.redis_url, failpoints=f"{point}=kill@1") as service:
        wait_until(service.is_mirrored)
        target = f"/users/{ada}/rating"
        with pytest.raises(httpx.TransportError):
            ask(service, "PATCH", target, {"delta": 5}, Idempotency_Key="killed")
        wait_until(service.is_ready)
        answer = ask(service, "PATCH", target, {"delta": 5}, Idempotency_Key="killed")

        assert (200, 1505, 1500) == (answer.status_code, answer.json()["rating"], answer.json()["previous_rating"])
        assert carried_out == ("idempotent-replayed" in answer.headers)
        assert told(answer) == told(ask(service, "PATCH", target, {"delta": 5}, Idempotency_Key="killed"))
        wait_until(service.is_mirrored)


def test_without_redis_every_write_is_durable_and_pending(database_url: str) -> None:
    """Ranks are null; a repetition says the same; when Redis is back the mirror has all of it."""
    with own_redis() as store:
        store.start()
        with serving(database_url, store.url) as service:
            wait_until(service.is_mirrored)
            ada, eve = user(service), user(service)
            store.kill()
            renamed = fresh_name("unseen")
            requests: list[tuple[str, str, object]] = [
                ("PATCH", f"/users/{ada['id']}/rating", {"delta": 1}),
                ("PUT", "/ratings", {"updates": [{"id": ada["id"], "rating": 1999}]}),
                ("PATCH", f"/users/{ada['id']}", {"username": renamed}),
            ]
            for method, target, body in requests:
                answers = [ask(service, method, target, body, Idempotency_Key=target[-20:]) for _ in range(2)]
                for answer in answers:
                    assert (200, "pending") == (answer.status_code, answer.headers["x-mirror-write"])
                    assert answer.json().get("items", [answer.json()])[0]["rank"] is None
                assert answers[0].json() == answers[1].json()
            gone = ask(service, "DELETE", f"/users/{eve['id']}")
            assert (204, "pending") == (gone.status_code, gone.headers["x-mirror-write"])
            token = gone.headers["x-consistency-token"]
            assert_problem(service.get(f"/users/{eve['id']}", X_Consistency_Token=token), "not-found")
            store.start()
            wait_until(service.is_mirrored)
            read = service.get(f"/users/{ada['id']}").json()
            assert (renamed, 1999) == (read["username"], read["rating"])
