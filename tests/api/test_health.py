"""GET /health, /health/live and /health/ready while both stores are well."""

from __future__ import annotations

import pytest

from service import __version__

from .serving import Service, wait_until
from .shapes import assert_request_id, fresh_name


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
