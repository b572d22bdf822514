"""A write with an Idempotency-Key is carried out once: whoever repeats it, whenever, and whatever died in between."""

from __future__ import annotations

import httpx
import pytest

from .serving import Service, wait_until
from .shapes import assert_problem, fresh_name
from .test_changes import ask, user

OURS = ("content-type", "content-length", "date", "x-request-id")


def told(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """What an answer says, but for what belongs to the request alone."""
    mine = {name: value for name, value in answer.headers.items() if name not in (*OURS, "idempotent-replayed")}
    return answer.status_code, answer.content, mine


def writes(service: Service) -> list[tuple[str, str, object]]:
    """One of each write that honours a key."""
    ada = user(service, rating=1500)
    return [
        ("POST", "/users", {"username": fresh_name("once")}),
        ("PATCH", f"/users/{ada['id']}/rating", {"delta": 7}),
        ("PUT", "/ratings", {"updates": [{"id": "nobody", "rating": 100}, {"id": ada["id"], "rating": 1700}]}),
    ]


@pytest.mark.parametrize("kind", range(3))
def test_a_repetition_gets_the_first_answer_and_changes_nothing(service: Service, kind: int) -> None:
    """Byte for byte, though others have moved since; what marks it is a header."""
    method, target, body = writes(service)[kind]
    key = fresh_name("key")
    first = ask(service, method, target, body, Idempotency_Key=key)
    user(service, rating=5000)
    before = service.rows()
    second = ask(service, method, target, body, Idempotency_Key=key)

    assert first.is_success
    assert told(first) == told(second)
    assert "idempotent-replayed" not in first.headers
    assert "true" == second.headers["idempotent-replayed"]
    assert before == service.rows()
    wait_until(service.is_mirrored)


@pytest.mark.parametrize("kind", range(3))
def test_a_key_belongs_to_one_request(service: Service, kind: int) -> None:
    """Another body, address or method with it is refused, and nothing changes."""
    mine = writes(service)
    method, target, body = mine[kind]
    key = fresh_name("key")
    ask(service, method, target, body, Idempotency_Key=key)
    before = service.rows()
    for other_method, other_target, other_body in [*writes(service), *mine]:
        if (other_method, other_target, other_body) != (method, target, body):
            answer = ask(service, other_method, other_target, other_body, Idempotency_Key=key)
            assert_problem(answer, "idempotency-mismatch")
    assert before.items() <= service.rows().items()


def test_spaces_and_the_order_of_fields_are_not_another_body(service: Service) -> None:
    """A body is what it says."""
    name, key = fresh_name("spaced"), fresh_name("key")
    headers = {"content-type": "application/json", "idempotency-key": key}
    bodies = (f'{{"username":"{name}","rating":1200}}', f'{{ "rating": 1200, "username": "{name}" }}')
    first, second = (service.client.post("/users", content=body, headers=headers) for body in bodies)

    assert (201, told(first)) == (second.status_code, told(second))


def test_a_definite_refusal_is_an_answer(service: Service) -> None:
    """It is kept, though a moment later the request could have been carried out."""
    name, key = fresh_name("refused"), fresh_name("key")
    holder = service.created(name)
    refused = ask(service, "POST", "/users", {"username": name}, Idempotency_Key=key)
    ask(service, "DELETE", f"/users/{holder['id']}")

    assert_problem(refused, "username-taken")
    assert_problem(ask(service, "POST", "/users", {"username": name}, Idempotency_Key=key), "username-taken")


def test_a_malformed_request_does_not_use_up_its_key(service: Service) -> None:
    """It was never carried out."""
    key = fresh_name("key")
    assert_problem(ask(service, "POST", "/users", {"username": "x"}, Idempotency_Key=key), "validation", "username")

    assert 201 == ask(service, "POST", "/users", {"username": fresh_name()}, Idempotency_Key=key).status_code


@pytest.mark.parametrize("key", ["", "a b", "x" * 65, "k\u00e9y", "tab\there"])
def test_a_key_is_64_visible_characters_at_most(service: Service, key: str) -> None:
    """Nothing is changed for one that is none."""
    before = service.rows()
    answer = service.client.post("/users", json={"username": fresh_name()}, headers={b"Idempotency-Key": key.encode()})

    assert_problem(answer, "validation", "Idempotency-Key")
    assert before == service.rows()


def test_every_visible_character_may_be_in_a_key(service: Service) -> None:
    """And two different keys are two requests."""
    ada = user(service, rating=1000)
    for number, key in enumerate(("".join(map(chr, range(33, 97))), "".join(map(chr, range(63, 127)))), start=1):
        answer = ask(service, "PATCH", f"/users/{ada['id']}/rating", {"delta": 1}, Idempotency_Key=key)
        assert 1000 + number == answer.json()["rating"]


def test_a_key_older_than_a_day_is_a_new_one(service: Service) -> None:
    """Also before anybody has removed it."""
    ada, key = user(service, rating=1000), fresh_name("key")
    target = f"/users/{ada['id']}/rating"
    ask(service, "PATCH", target, {"delta": 1}, Idempotency_Key=key)
    service.execute("UPDATE idempotency_keys SET created_at = created_at - interval '25 hours'")

    assert 1003 == ask(service, "PATCH", target, {"delta": 2}, Idempotency_Key=key).json()["rating"]
