"""Who may write, whose pages may ask, and what browsers are told."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import httpx
import pytest
import redis

from .serving import Service, serving, wait_until
from .shapes import assert_problem

KEYS = ["first-key-of-a-test", "second-key-of-a-test"]
ORIGIN = "https://ladder.example"
WRITES = [
    ("POST", "/users", {"username": "written"}),
    ("PUT", "/users/known/rating", {"rating": 1600}),
    ("PATCH", "/users/known/rating", {"delta": 1}),
    ("PUT", "/ratings", {"updates": [{"id": "known", "rating": 1600}]}),
    ("PATCH", "/users/known", {"username": "unknown"}),
    ("DELETE", "/users/known", None),
]
READS = [
    "/users/nobody",
    "/users/known/rank",
    "/ratings/distribution",
    "/leaderboard",
    "/users/search?username=x",
    "/health",
    "/health/live",
]


@pytest.fixture(scope="module")
def service(fresh_database: str, stores) -> Iterator[Service]:
    """A service whose writes need one of two keys, and whose answers one foreign page may read."""
    digests = ",".join(hashlib.sha256(key.encode()).hexdigest() for key in KEYS)
    env = {"API_KEYS": digests, "CORS_ALLOW_ORIGINS": ORIGIN}
    with redis.Redis.from_url(stores.redis_url) as client:
        try:
            with serving(fresh_database, stores.redis_url, env=env) as running:
                wait_until(running.is_mirrored)
                running.post({"username": "known", "id": "known"}, authorization=f"Bearer {KEYS[0]}")
                yield running
        finally:
            client.flushdb()


def call(service: Service, method: str, target: str, body: object = None, **headers: str) -> httpx.Response:
    """Answer of any method; `if_match` becomes the header `If-Match`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.client.request(method, target, json=body, headers=named)


@pytest.mark.parametrize("key", KEYS)
def test_each_key_may_write(service: Service, key: str) -> None:
    """Two, so that one can be replaced while the other is in use; the scheme's case does not matter."""
    assert 201 == call(service, "POST", "/users", {"username": key}, Authorization=f"Bearer {key}").status_code
    rated = call(service, "PUT", "/users/known/rating", {"rating": 1500 + len(key)}, Authorization=f"bearer {key}")
    assert 200 == rated.status_code


@pytest.mark.parametrize(("method", "target", "body"), WRITES)
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer wrong", "Basic Zmlyc3Q6", f"Basic {KEYS[0]}", KEYS[0], f"Bearer {KEYS[0]}x",
     f"Bearer {KEYS[0][:-1]}", f"Bearer {hashlib.sha256(KEYS[0].encode()).hexdigest()}", "Bearer \xff", "Bearer " + "x" * 9000,
     f"Bearer {KEYS[0]}, Bearer {KEYS[1]}"],
)  # fmt: skip
def test_nobody_else_may_write(
    service: Service, method: str, target: str, body: object, authorization: str | None
) -> None:
    """401, before the body is looked at, and nothing is changed."""
    before = service.rows()
    headers = [] if authorization is None else [(b"Authorization", authorization.encode("latin-1"))]
    answer = service.client.request(method, target, json=body, headers=headers)

    assert_problem(answer, "unauthorized")
    assert "Bearer" == answer.headers["www-authenticate"]
    assert before == service.rows()
    assert 401 == service.client.request(method, target, content=b"{", headers=headers).status_code


@pytest.mark.parametrize("keys", [(KEYS[0], "wrong"), ("wrong", KEYS[0]), (KEYS[0], KEYS[0])])
def test_two_lines_of_authorization_are_no_key(service: Service, keys: tuple[str, str]) -> None:
    """As the same two in one line: which of them is meant depends on the reader."""
    headers = [(b"Authorization", f"Bearer {key}".encode()) for key in keys]
    for method, target, body in WRITES:
        assert_problem(service.client.request(method, target, json=body, headers=headers), "unauthorized")


@pytest.mark.parametrize("target", READS)
def test_reads_are_public(service: Service, target: str) -> None:
    """With a wrong key too."""
    assert service.get(target).status_code in (200, 404)
    assert service.get(target, Authorization="Bearer wrong").status_code in (200, 404)


def test_no_key_is_needed_to_learn_that_there_is_nothing(service: Service) -> None:
    """Routes and methods are public."""
    assert 404 == call(service, "POST", "/nowhere", {}).status_code
    assert 405 == call(service, "POST", "/leaderboard", {}).status_code


def test_no_key_is_ever_logged(service: Service) -> None:
    """Neither one that is right nor one that is wrong; the level is debug."""
    call(service, "POST", "/users", {"username": "x"}, Authorization=f"Bearer {KEYS[0]}")
    call(service, "POST", "/users", {"username": "x"}, Authorization="Bearer geheim-and-wrong")
    log = service.log()

    assert "POST" in log
    assert not any(
        secret in log for secret in (*KEYS, "geheim", *(hashlib.sha256(k.encode()).hexdigest() for k in KEYS))
    )


def test_with_keys_it_may_listen_anywhere(fresh_database: str, redis_url: str) -> None:
    """What the start refuses without."""
    digest = hashlib.sha256(KEYS[0].encode()).hexdigest()
    with serving(fresh_database, redis_url, env={"HOST": "0.0.0.0", "API_KEYS": digest}) as running:
        assert 401 == running.post({"username": "someone"}).status_code


# Pages of other origins


def test_the_page_of_a_known_origin_may_ask(service: Service) -> None:
    """It reads the answer and its headers, also a refusal; never with credentials."""
    for target in ("/leaderboard", "/users/nobody", "/nowhere", "/leaderboard?limit=0"):
        answer = service.get(target, Origin=ORIGIN)

        assert ORIGIN == answer.headers["access-control-allow-origin"]
        assert "x-consistency-token" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers
        assert "Origin" in answer.headers["vary"].split(", ")
    too_long = service.get("/leaderboard", Origin=ORIGIN, x_long="a" * 65_000, x_more="a" * 600)
    assert (431, ORIGIN) == (too_long.status_code, too_long.headers["access-control-allow-origin"])


def test_vary_is_one_line(service: Service) -> None:
    """Some caches read only one: they would send an answer in gzip, or of another origin, to the wrong client."""
    for target in ("/leaderboard?limit=1", "/leaderboard", "/openapi.json", "/metrics"):
        (line,) = service.get(target, Origin=ORIGIN).headers.get_list("vary")

        assert {"Origin", "Accept-Encoding"} <= set(line.split(", "))


def test_a_preflight_of_a_known_origin_is_answered(service: Service) -> None:
    """Without a key: browsers send none with it."""
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "if-match"}
    answer = service.client.options("/users/known/rating", headers=asked)

    assert 204 == answer.status_code
    assert ORIGIN == answer.headers["access-control-allow-origin"]
    assert {"GET", "PUT", "PATCH", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    assert "idempotency-key" in answer.headers["access-control-allow-headers"]
    assert {"authorization", "if-match", "content-type"} <= set(
        answer.headers["access-control-allow-headers"].split(", ")
    )


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "https://ladder.example.evil", "http://ladder.example", "null", "", "*", ORIGIN + "/"],
)
def test_no_other_origin_is_told_anything(service: Service, origin: str) -> None:
    """Exactly the listed ones."""
    preflight = service.client.options(
        "/users/known/rating", headers={"Origin": origin, "Access-Control-Request-Method": "PUT"}
    )
    for answer in (service.get("/leaderboard", Origin=origin), preflight):
        assert not any(name.startswith("access-control-") for name in answer.headers)
        assert "Origin" in answer.headers["vary"].split(", ")


# What browsers are told


@pytest.mark.parametrize("target", [*READS, "/nowhere", "/leaderboard?limit=0"])
def test_an_answer_is_data_and_says_so(service: Service, target: str) -> None:
    """It is not guessed to be a page, not framed, and not kept without asking again."""
    headers = service.get(target).headers

    assert "nosniff" == headers["x-content-type-options"]
    assert "default-src 'none'; frame-ancestors 'none'" == headers["content-security-policy"]
    assert "DENY" == headers["x-frame-options"]
    assert "no-referrer" == headers["referrer-policy"]
    assert headers["cache-control"] in ("no-cache", "no-store")


def test_a_list_of_ranks_needs_no_key(service: Service) -> None:
    """It is a read, though it is asked for with a body."""
    assert 200 == call(service, "POST", "/ranks", {"user_ids": ["known"]}).status_code
