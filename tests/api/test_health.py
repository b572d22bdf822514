"""GET /health, /health/live and /health/ready while both stores are well."""

from __future__ import annotations

import contextlib
import socket
from functools import partial

import pytest

from service import __version__

from .serving import Service, wait_until
from .shapes import assert_request_id, fresh_name

CROWD = 300


def test_health_tells_how_the_stores_are(service: Service) -> None:
    """200 and `ok`; the parts in the documented order."""
    answer = service.get("/health")
    health = answer.json()

    assert 200 == answer.status_code
    assert "application/json" == answer.headers["content-type"]
    assert ["status", "version", "postgres", "redis", "mirror"] == list(health)
    assert ("ok", __version__) == (health["status"], health["version"])
    assert "up" == health["postgres"]["status"] == health["redis"]["status"]
    assert ["ready", "lag_ms", "users"] == list(health["mirror"])[:3]
    assert health["mirror"]["ready"] is True
    assert type(health["mirror"]["lag_ms"]) is int
    assert_request_id(answer.headers)


def test_the_lag_stays_small(service: Service) -> None:
    """The mirror is followed a few times a second even while nobody writes."""
    wait_until(lambda: 0 <= service.get("/health").json()["mirror"]["lag_ms"] < 2000)


def test_the_mirror_counts_its_users(service: Service) -> None:
    before = service.get("/health").json()["mirror"]["users"]
    service.created(fresh_name())

    assert before + 1 == service.get("/health").json()["mirror"]["users"]


@pytest.mark.parametrize("target", ["/health", "/health/live", "/health/ready"])
def test_health_is_never_cached(service: Service, target: str) -> None:
    """An old answer would hide that something has failed."""
    answer = service.get(target)

    assert (200, "no-store") == (answer.status_code, answer.headers["cache-control"])


@pytest.mark.parametrize("target", ["/health", "/health/live", "/health/ready"])
def test_health_says_nothing_that_helps_an_attacker(service: Service, target: str) -> None:
    """Neither addresses of the stores nor paths nor passwords."""
    text = service.get(target).text

    assert not any(secret in text for secret in ("postgresql:", "redis:", "unix:", "sock", "/", "ladder_test_"))


@pytest.mark.parametrize("target", ["/health", "/health/ready", "/metrics"])
def test_a_crowd_of_probes_is_answered_with_few_calls(service: Service, target: str) -> None:
    """They share the calls to both stores; a connection for each would leave none for the ranks."""
    with contextlib.ExitStack() as stack:
        lines = [
            stack.enter_context(socket.create_connection(("127.0.0.1", service.settings.port), timeout=10))
            for _ in range(CROWD)
        ]
        for line in lines:
            line.sendall(f"GET {target} HTTP/1.1\r\nHost: ladder\r\nConnection: close\r\n\r\n".encode())
        answers = [b"".join(iter(partial(line.recv, 65536), b"")) for line in lines]

    assert {b"200"} == {answer[9:12] for answer in answers}
    assert "closed" == service.get("/health").json()["redis"]["breaker"]
    assert not [line for line in service.logged() if line["event"] == "redis.breaker"]
