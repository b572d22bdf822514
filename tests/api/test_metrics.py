"""GET /metrics of one worker: its formats, its labels, and that every number means what its name says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import redis
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families

from service import __version__
from tests.conftest import Stores
from tests.servers.own_redis import OwnRedis, own_redis
from tests.servers.proxy import Door, door_to

from .scrapes import Scrape, scrape
from .serving import ROOT, Service, serving, wait_until
from .shapes import assert_problem, fresh_name
from .wire import request

AWAY_SECONDS = 1.0
"""A scrape answers within that, however the stores are."""
UNITS = re.compile(
    r"ladder_(?:[a-z_]+_total|[a-z_]+_seconds|[a-z_]+_bytes"
    r"|build_info|batch_size|http_requests_in_flight|streams_open|breaker_state|tail_leading|(?:redis|postgres)_up"
    r"|mirror_ready|mirror_users|pool_connections|pool_idle_connections|pool_waiting"
    r"|reconcile_(?:found|checked_users|repaired|remaining|history_rows|exit_code))\Z"
)
PLAIN = "text/plain; version=0.0.4; charset=utf-8"


@pytest.fixture(scope="module", autouse=True)
def _known(service: Service) -> None:
    """A user that every test may look up."""
    service.created("known", id="known", rating=1500)


# The formats


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "text/plain", "text/plain;version=1.0.0", "application/openmetrics-textual", "application/json"],
)
def test_it_is_the_text_format(service: Service, accept: str) -> None:
    """Whatever else is asked for; never to be kept, because it is true now."""
    answer = service.get("/metrics", Accept=accept)

    assert (200, PLAIN) == (answer.status_code, answer.headers["content-type"])
    assert "no-store" == answer.headers["cache-control"]
    assert Scrape(answer.text).families


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1",
    ],
)
def test_who_asks_for_openmetrics_gets_it(service: Service, accept: str) -> None:
    """As a current Prometheus does; the metrics are the same."""
    answer = service.get("/metrics", Accept=accept)

    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.text.endswith("# EOF\n")
    families = {family.name for family in openmetrics_families(answer.text)}
    assert {family.name for family in scrape(service).families} == families


def test_it_has_no_parameters(service: Service) -> None:
    assert_problem(service.get("/metrics?name[]=up"), "validation", "name[]")


def test_every_name_follows_prometheus_conventions(service: Service) -> None:
    """Our prefix, base units, `_total` on what only rises; and every metric explains itself."""
    for family in scrape(service).families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert name.startswith("process_") or UNITS.match(name), name
        assert family.type == "counter" or not family.name.endswith("_total")
        assert family.documentation.endswith("."), name
        for sample in family.samples:
            assert sample.value == sample.value, f"{name} is not a number"


# Requests


def test_an_answer_that_was_received_is_counted(service: Service) -> None:
    """By route template, method and status, at once; HEAD as HEAD. So is how long it took."""
    labels = {"route": "/users/{user_id}", "status": "200"}
    before = scrape(service)
    for _ in range(5):
        service.get("/users/known")
    service.client.head("/users/known")
    after = scrape(service)

    for method, count in (("GET", 5), ("HEAD", 1)):
        grown = [found.total("ladder_http_requests_total", method=method, **labels) for found in (before, after)]
        assert grown[0] + count == grown[1]
    name = "ladder_http_request_duration_seconds"
    durations = [found.total(f"{name}_count", route="/users/{user_id}") for found in (before, after)]
    assert durations[0] + 6 == durations[1]
    spent = after.total(f"{name}_sum", route="/users/{user_id}") - before.total(f"{name}_sum", route="/users/{user_id}")
    assert 0 < spent < 10
    bounds = {
        sample.labels["le"]
        for family in after.families
        for sample in family.samples
        if name in sample.name and "le" in sample.labels
    }
    assert {"0.0005", "5.0", "+Inf"} <= bounds


def test_labels_are_bounded(service: Service) -> None:
    """Whatever clients send: addresses, ids and invented methods make no new series."""
    hostile = [
        "/nowhere/a",
        "/nowhere/b",
        "/users/ghost-1",
        "/users/ghost-2",
        "/users/ghost-3/rating",
        "/%00",
        "//",
        "/users/",
    ]
    methods = ["GET", "POST", "PUT", "DELETE", "BREW", "get", "PROPFIND"]

    def series() -> set[str]:
        lines = (line for line in scrape(service).text.splitlines() if "http_request" in line)
        return {line.rpartition(" ")[0] for line in lines if 'route="/metrics"' not in line}

    def attack(suffix: str) -> None:
        for target in hostile:
            for method in methods:
                service.raw(request(method, target.replace("ghost", f"ghost{suffix}"), []))

    attack("")
    once = series()
    attack("-again")

    assert once == series()
    text = "\n".join(once)
    assert 'route="/users/{user_id}"' in text
    assert 'method="other"' in text
    assert 'route="none"' in text
    assert not re.search(r"ghost|nowhere|BREW|known|127\.0\.0\.1", text)


def test_it_tells_no_secret(service: Service) -> None:
    """Neither addresses of the stores nor names of databases, users or paths."""
    service.created(name := fresh_name())
    text = scrape(service).text

    assert not any(
        secret in text for secret in ("postgresql:", "redis:", "unix:", "sock", "ladder_test_", "/tmp", str(ROOT), name)
    )


def test_only_the_scrape_itself_is_in_flight(service: Service) -> None:
    """Whatever was answered, refused or given up before has left no trace there."""
    service.get("/nowhere")
    wait_until(lambda: scrape(service).value("ladder_http_requests_in_flight") == 1)


# What it tells of the service


def test_answers_are_counted_by_what_ranked(service: Service) -> None:
    """As X-Rank-Source says; and the cached object is found the second time."""
    service.get("/users/known")
    before = scrape(service)
    answers = [service.get(target) for target in ("/users/known", "/leaderboard", "/users/search?username=known")]
    after = scrape(service)

    assert ["redis"] * 3 == [answer.headers["x-rank-source"] for answer in answers]
    name = "ladder_rank_answers_total"
    assert before.total(name, source="redis") + 3 == after.total(name, source="redis")
    assert {"redis", "postgres", "histogram"} == {
        sample.labels["source"] for family in after.families for sample in family.samples if sample.name == name
    }
    name = "ladder_object_cache_lookups_total"
    assert before.total(name, result="hit") + 2 == after.total(name, result="hit")
    assert before.total(name, result="miss") == after.total(name, result="miss")


def test_writes_are_counted_by_what_the_mirror_made_of_them(service: Service) -> None:
    before = scrape(service).total("ladder_mirror_writes_total", outcome="applied")
    answer = service.put("known", 1501)

    assert "applied" == answer.headers["x-mirror-write"]
    assert before + 1 == scrape(service).total("ladder_mirror_writes_total", outcome="applied")


def test_it_tells_how_the_service_is(service: Service) -> None:
    """The same as /health, the tailer at work, the stores' calls, pools and batches."""
    service.put("known", 1502)
    wait_until(lambda: (scrape(service).value("ladder_mirror_lag_seconds") or 0) < 2)
    wait_until(lambda: scrape(service).total("ladder_pool_requests_total", pool="writes") >= 1)
    found = scrape(service)

    assert [1, 1, 1, 1] == [
        found.value(f"ladder_{name}") for name in ("redis_up", "postgres_up", "mirror_ready", "tail_leading")
    ]
    assert found.value("ladder_mirror_users") == service.count()
    assert 1 == found.total("ladder_build_info", version=__version__)
    assert [0, 0] == [found.value("ladder_breaker_state", store=store) for store in ("redis", "postgres")]
    assert found.total("ladder_tail_cycles_total") > 1
    assert found.total("ladder_mirror_loads_begun_total") == found.total("ladder_mirror_loads_finished_total") == 1
    for name, operation in (("redis", "put"), ("redis", "hgetall"), ("postgres", "rate"), ("postgres", "changes")):
        assert found.total(f"ladder_{name}_call_duration_seconds_count", operation=operation) > 0
        assert 0 == found.value(f"ladder_{name}_errors_total", operation=operation)
    assert found.total("ladder_batch_size_count", name="ratings") > 0
    assert found.total("ladder_pool_connections", pool="writes") > 0
    assert found.total("ladder_event_loop_delay_seconds_count") > 0


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_it_tells_how_the_process_is(service: Service) -> None:
    found = scrape(service)

    assert 10e6 < found.total("process_resident_memory_bytes", worker="0") < 1e9
    assert found.total("process_cpu_seconds_total", worker="0") > 0
    assert abs(found.total("process_start_time_seconds", worker="0") - time.time()) < 3600


def reconcile(service: Service, *arguments: str, **variables: str) -> int:
    """The exit code of a full reconciliation of the service's stores, or of those that are named."""
    stores = {"DATABASE_URL": service.settings.database_url, "REDIS_URL": service.settings.redis_url, **variables}
    command = [sys.executable, str(ROOT / "scripts" / "reconcile.py"), *arguments]
    return subprocess.run(command, env={**os.environ, **stores}, capture_output=True, check=False).returncode


def test_it_tells_how_the_last_reconciliation_ended(service: Service, stores: Stores) -> None:
    """What it found by kind and repaired, and when. A dry run leaves no word; one that failed, since when none did not."""
    user = str(service.created(fresh_name())["id"])
    with redis.Redis.from_url(stores.redis_url) as client:
        (member,) = (found for found in client.zrange("{ladder}:board", 0, -1) if found.endswith(user.encode()))
        client.zadd("{ladder}:board", {member: 4999})
    assert 3 == reconcile(service, "--dry-run")
    assert "ladder_reconcile" not in scrape(service).text
    begun = time.time()
    assert 3 == reconcile(service, "--fail-on-drift")
    found = scrape(service)

    assert 1 == found.value("ladder_reconcile_found", kind="corrupt")
    assert (
        0
        == found.value("ladder_reconcile_found", kind="ghost")
        == found.value("ladder_reconcile_found", kind="miscount")
    )
    assert (1, 0, 3) == tuple(
        found.value(f"ladder_reconcile_{name}") for name in ("repaired", "remaining", "exit_code")
    )
    assert found.value("ladder_reconcile_checked_users") == service.count()
    ended = found.value("ladder_reconcile_timestamp_seconds") or 0
    assert begun <= ended == found.value("ladder_reconcile_completed_timestamp_seconds")
    assert 5 == reconcile(service, DATABASE_URL="postgresql://ladder@127.0.0.1:1/nowhere")
    found = scrape(service)
    assert 5 == found.value("ladder_reconcile_exit_code")
    assert ended < (found.value("ladder_reconcile_timestamp_seconds") or 0)
    assert ended == found.value("ladder_reconcile_completed_timestamp_seconds")


# Without stores


@pytest.fixture
def alone(database_url: str) -> Iterator[tuple[Service, OwnRedis, Door]]:
    """A service, and its stores to take away."""
    with door_to(database_url) as door, own_redis() as server:
        server.start()
        with serving(door.url, server.url) as running:
            wait_until(lambda: running.get("/leaderboard").headers.get("x-rank-source") == "redis")
            yield running, server, door


def test_it_answers_while_both_stores_hang_or_are_away(alone: tuple[Service, OwnRedis, Door]) -> None:
    """Within a second, with what is known: no lag of a mirror that cannot be asked."""
    service, server, door = alone

    def said() -> Scrape:
        begun = time.monotonic()
        found = scrape(service)
        assert time.monotonic() - begun < AWAY_SECONDS
        assert [0, 0, 0] == [found.value(f"ladder_{name}") for name in ("redis_up", "postgres_up", "mirror_ready")]
        assert not {"ladder_mirror_lag_seconds", "ladder_mirror_users"} & found.names
        return found

    with server.paused(), door.hanging():
        said()
    door.shut()
    server.kill()
    wait_until(lambda: service.get("/health").status_code == 503)
    for _ in range(6):
        service.get("/users/known")
    found = said()
    assert 2 == found.value("ladder_breaker_state", store="redis")
    assert found.total("ladder_redis_errors_total") > 0
    assert found.total("ladder_postgres_errors_total") > 0
    assert found.total("ladder_http_requests_total", status="503", route="/users/{user_id}") >= 1
