"""What is told of a Redis by the settings that it shows, and by those that it hides."""

from __future__ import annotations

import pytest

from service.store.redis_settings import Verdict, judge

GOOD = {
    "redis_version": "7.2.4",
    "role": "master",
    "connected_slaves": "0",
    "maxmemory_policy": "noeviction",
    "maxmemory-policy": "noeviction",
    "stop-writes-on-bgsave-error": "no",
    "save": "3600 1",
    "lazyfree-lazy-server-del": "yes",
    "min-replicas-to-write": "0",
    "locale-collate": "",
}


def test_a_good_one_is_not_complained_of() -> None:
    """Nor is one that tells nothing at all."""
    assert Verdict() == judge(GOOD)
    assert Verdict() == judge({})


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru", "volatile-ttl"])
def test_a_policy_that_spares_the_board_is_good(policy: str) -> None:
    """The keys of the board have no time to live."""
    assert Verdict() == judge({**GOOD, "maxmemory-policy": policy})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"maxmemory-policy": "allkeys-lru"}, "noeviction"),
        ({"maxmemory-policy": "allkeys-random"}, "allkeys-random"),
        ({"role": "slave"}, "master"),
        ({"redis_version": "6.2.14"}, "7.0"),
        ({"redis_version": "5.0"}, "5.0"),
        ({"redis_mode": "sentinel"}, "Sentinel"),
        ({"redis_mode": "cluster"}, "Cluster"),
        ({"server_mode": "cluster"}, "Cluster"),
    ],
)
def test_what_would_harm_the_board_is_refused(change: dict[str, str], word: str) -> None:
    """In words that say what to do."""
    assert word in judge({**GOOD, **change}).refusal


def test_info_is_enough_to_refuse() -> None:
    """CONFIG may be forbidden."""
    assert "noeviction" in judge({"maxmemory_policy": "allkeys-lfu"}).refusal


@pytest.mark.parametrize(
    "change",
    [
        {"stop-writes-on-bgsave-error": "yes"},
        {"lazyfree-lazy-server-del": "no"},
        {"min-replicas-to-write": "1"},
        {"locale-collate": "de_DE.UTF-8"},
    ],
    ids=str,
)
def test_what_is_a_pity_is_warned_of(change: dict[str, str]) -> None:
    """Once each, by its name."""
    verdict = judge({**GOOD, **change})

    assert "" == verdict.refusal
    (warning,) = verdict.warnings
    assert next(iter(change)) in warning


@pytest.mark.parametrize(
    "change",
    [
        {"stop-writes-on-bgsave-error": "yes", "save": ""},
        {"min-replicas-to-write": "1", "connected_slaves": "1"},
        {"redis_version": "unstable"},
        {"locale-collate": "C"},
    ],
    ids=str,
)
def test_what_does_no_harm_is_not(change: dict[str, str]) -> None:
    """Without snapshots none can fail; enough replicas are enough."""
    assert Verdict() == judge({**GOOD, **change})
