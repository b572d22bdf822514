"""How often a client may ask, across processes: real services over one Redis."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from tests.servers.own_redis import own_redis

from .serving import Service, serving, wait_until
from .shapes import assert_problem, assert_request_id
from .wire import request

RATE, BURST = 5, 200
HEADERS = {"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"}
ORIGIN = "https://ladder.example"
PROXIED = {"TRUSTED_PROXIES": "127.0.0.0/8"}


def limited(**variables: str) -> dict[str, str]:
    """The environment of a service with a limit that a test can reach."""
    return {"RATE_LIMIT_PER_SECOND": str(RATE), "RATE_LIMIT_BURST": str(BURST), **PROXIED, **variables}


@pytest.fixture(scope="module")
def service(fresh_database: str) -> Iterator[Service]:
    """Two workers behind one port, and a Redis of their own, so that no bucket is anybody else's."""
    with own_redis() as server:
        server.start()
        with serving(fresh_database, server.url, workers=2, env=limited(CORS_ALLOW_ORIGINS=ORIGIN)) as running:
            wait_until(running.is_mirrored)
            yield running


def behind(address: str) -> dict[str, str]:
    """The headers of a client behind the proxy that this test is."""
    return {"X-Forwarded-For": address}


async def crowd(ports: list[int], count: int, address: str) -> Counter[int]:
    """So many requests of one client at once, each over a connection of its own; how often each status came back."""
    sent = request("GET", "/users/nobody", list(behind(address).items()))

    async def ask(port: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        answer = await reader.read()
        writer.close()
        return int(answer.split(b" ", 2)[1])

    return Counter(await asyncio.gather(*(ask(ports[turn % len(ports)]) for turn in range(count))))


async def test_of_a_thousand_requests_the_burst_passes(service: Service, fresh_database: str) -> None:
    """And what time brought meanwhile, not one more: counted over three processes of two services."""
    with serving(fresh_database, service.settings.redis_url, env=limited()) as other:
        begun = time.monotonic()
        answers = await crowd([service.settings.port, other.settings.port], 1000, "198.51.100.1")
        seconds = time.monotonic() - begun

    assert {404, 429} == set(answers)
    assert BURST <= answers[404] <= BURST + RATE * seconds + 1


def test_who_is_refused_learns_when_to_come_back(service: Service) -> None:
    """429 with a problem document and Retry-After; then, after that time, it passes again."""
    address = behind("198.51.100.2")
    while (refused := service.client.get("/users/nobody", headers=address)).status_code != 429:
        pass

    assert_problem(refused, "rate-limited")
    assert_request_id(refused.headers)
    assert "1" == refused.headers["retry-after"]
    assert "0" == refused.headers["ratelimit-remaining"]
    assert str(BURST) == refused.headers["ratelimit-limit"]
    assert BURST // RATE == int(refused.headers["ratelimit-reset"])
    wait_until(lambda: service.client.get("/users/nobody", headers=address).status_code == 404, seconds=3)


@pytest.mark.parametrize(
    "target", ["/users/nobody", "/leaderboard", "/nowhere", "/users/search?username=x", "/leaderboard?limit=0"]
)
def test_every_answer_tells_how_its_client_stands(service: Service, target: str) -> None:
    """Refusals of other kinds too; the numbers fall by one a request."""
    address = behind(f"198.51.100.{10 + len(target)}")
    first, second = (service.client.get(target, headers=address) for _ in range(2))

    assert HEADERS <= set(first.headers)
    assert str(BURST) == first.headers["ratelimit-limit"]
    assert BURST - 1 == int(first.headers["ratelimit-remaining"])
    assert int(second.headers["ratelimit-remaining"]) in (BURST - 2, BURST - 1)
    assert "1" == first.headers["ratelimit-reset"]


def test_a_preflight_is_a_request_as_any_other(service: Service) -> None:
    """It tells how its client stands, and is refused beyond the limit, in words that the page may read."""
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "PUT", **behind("198.51.100.4")}
    answers = [service.client.options("/users/nobody/rating", headers=asked) for _ in range(BURST + 50)]
    first = answers[0]
    refused = next((answer for answer in answers if answer.status_code != 204), first)

    assert (204, str(BURST - 1)) == (first.status_code, first.headers["ratelimit-remaining"])
    assert_problem(refused, "rate-limited")
    assert ORIGIN == refused.headers["access-control-allow-origin"]


@pytest.mark.parametrize("target", ["/health", "/health/live", "/health/ready"])
def test_whoever_watches_is_not_limited(service: Service, target: str) -> None:
    """Nor told of limits."""
    answers = [service.client.get(target, headers=behind("198.51.100.3")) for _ in range(BURST + 50)]

    assert {200} == {answer.status_code for answer in answers}
    assert set() == HEADERS & set(answers[0].headers)


async def test_an_ipv6_customer_is_one_client(service: Service) -> None:
    """Whichever of its 2**64 addresses it comes from."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.settings.port}", trust_env=False) as client:
        answers = [
            await client.get("/users/nobody", headers=behind(f"2001:db8:0:1::{number:x}")) for number in range(20)
        ]
        neighbour = await client.get("/users/nobody", headers=behind("2001:db8:0:2::1"))

    assert int(answers[-1].headers["ratelimit-remaining"]) < BURST - 10
    assert str(BURST - 1) == neighbour.headers["ratelimit-remaining"]


@pytest.mark.parametrize("chain", ["198.51.100.{}", "198.51.100.{}, 203.0.113.200", "x, {}, 203.0.113.200"])
def test_a_forged_chain_is_no_other_client(service: Service, chain: str) -> None:
    """What stands left of the first address that no trusted proxy wrote counts for nothing."""
    answers = [
        service.client.get("/users/nobody", headers=behind(f"{chain.format(number)}, 203.0.113.{len(chain)}"))
        for number in range(20)
    ]

    assert int(answers[-1].headers["ratelimit-remaining"]) < BURST - 10


async def test_without_redis_each_process_limits_on_its_own(database_url: str) -> None:
    """No request waits for it or fails of it, and a client still cannot ask without end."""
    with own_redis() as server:
        server.start()
        with serving(database_url, server.url, env=limited()) as running:
            wait_until(running.is_mirrored)
            server.kill()
            await crowd([running.settings.port], 5, "198.51.100.7")
            begun = time.monotonic()
            answers = await crowd([running.settings.port], 600, "198.51.100.8")
            seconds = time.monotonic() - begun
            assert {404, 429} == set(answers)
            assert BURST <= answers[404] <= BURST + RATE * seconds + 1
            server.start()
            wait_until(running.is_mirrored)
            running.client.get("/users/nobody", headers=behind("198.51.100.9"))

            def shared() -> bool:
                running.client.get("/users/nobody", headers=behind("198.51.100.9"))
                return any(line["event"] == "rate_limit.shared" for line in running.logged())

            wait_until(shared, seconds=40)


def test_the_peer_counts_when_no_proxy_is_trusted(database_url: str) -> None:
    """By default, whatever it claims."""
    with own_redis() as server:
        server.start()
        with serving(database_url, server.url, env=limited(TRUSTED_PROXIES="")) as running:
            answers = [running.client.get("/users/x", headers=behind(f"198.51.100.{n}")) for n in range(20)]

    assert int(answers[-1].headers["ratelimit-remaining"]) < BURST - 10


def test_zero_switches_the_limit_off(database_url: str, redis_url: str) -> None:
    """Either number; then nobody is told of one."""
    for name in ("RATE_LIMIT_PER_SECOND", "RATE_LIMIT_BURST"):
        with serving(database_url, redis_url, env={**limited(), name: "0"}) as running:
            assert set() == HEADERS & set(running.get("/users/nobody").headers)


def test_who_is_still_sending_is_refused_when_done(service: Service) -> None:
    """A connection that is closed while its client sends would lose the answer, and when to come again."""
    address = behind("198.51.100.77")
    while service.client.get("/users/nobody", headers=address).status_code != 429:
        pass
    headers = [("Content-Type", "application/json"), *address.items()]
    with socket.create_connection(("127.0.0.1", service.settings.port), timeout=5) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        line.sendall(request("PUT", "/ratings", headers, b" " * 2**20))
        answer = b"".join(iter(lambda: line.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nretry-after: 1\r\n" in answer
