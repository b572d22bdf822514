"""The script itself, over few users and for a short while: it measures what it says, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from service import demo
from service.benchmark import servers
from service.benchmark.stores import MARK, Stores
from service.settings import Settings
from service.store.migrate import migrate
from tests.api.serving import ROOT, serving, wait_until

USERS = 500


def _run(settings: Settings, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    command = [str(ROOT / "scripts" / "benchmark.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def _measured(settings: Settings, *arguments: str | Path) -> dict[str, Any]:
    done = _run(settings, *arguments, "--json")

    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["environment"]["cores"] > 0
    return found


def _databases(settings: Settings) -> list[str]:
    with psycopg.connect(settings.database_url) as connection:
        rows = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'ladder_benchmark%'")
        return [row[0] for row in rows]


@pytest.fixture(autouse=True)
def nothing_left(settings: Settings) -> Any:
    """After each test there is neither a database of the benchmark nor a key in its Redis database."""
    yield
    stores = Stores(settings.database_url, settings.redis_url, USERS)
    with redis.Redis.from_url(stores.redis_url) as client:
        left = client.dbsize()
        client.flushdb()
    assert (0, []) == (left, _databases(settings))


def test_http_measures_service_and_bare_handler(settings: Settings, tmp_path: Path) -> None:
    """Reads beside a bare handler, writes alone; also written as JSON."""
    arguments = ["--users", str(USERS), "--seconds", "1", "--rounds", "1", "--workers", "1", "--connections", "4"]
    result = _measured(
        settings, "http", *arguments, "--only", "rank,put", "--generator", "built-in", "--output", tmp_path
    )

    assert result["environment"]["postgres"].startswith("PostgreSQL ")
    rank, put = result["operations"]
    assert ("rank", 1, 1) == (rank["name"], len(rank["samples"]), len(rank["bare"]))
    assert ("put", 1, 0) == (put["name"], len(put["samples"]), len(put["bare"]))
    assert all(sample["requests"] > 10 and sample["failed"] == 0 for sample in rank["samples"] + put["samples"])
    assert json.loads((tmp_path / "http.json").read_text()) == result


def test_rank_measures_every_way_and_the_memory(settings: Settings) -> None:
    """The libraries are missing here, and it says so."""
    result = _measured(settings, "rank", "--sizes", "200,500", "--seconds", "0.01", "--rounds", "2")

    assert [200, USERS] == [size["users"] for size in result["sizes"]]
    for size in result["sizes"]:
        names = {timing["name"] for timing in size["timings"]}
        assert {
            "sql-count",
            "sql-row-number",
            "sql-offset",
            "sql-keyset",
            "ladder-store",
            "ladder",
            "ladder-batch",
        } <= names
        assert all(len(timing["samples"]) == 2 for timing in size["timings"])
        assert size["memory"]["board"] > 50 * size["users"]
        assert size["memory"]["users"] > 50 * size["users"]
        assert size["memory"]["bare"] > 50 * size["users"]
    assert len(result["missing"]) == 2


def test_a_library_that_does_not_run_is_told(settings: Settings, tmp_path: Path) -> None:
    """The rest is measured all the same."""
    arguments = ["--sizes", "200", "--seconds", "0.01", "--rounds", "1"]
    result = _measured(settings, "rank", *arguments, "--leaderboard", tmp_path)

    assert any(sentence.startswith("leaderboard was not measured: [Errno 2]") for sentence in result["missing"])


def test_write_watches_the_mirror_meanwhile(settings: Settings) -> None:
    """What is written past the service needs the tailer, and is later than what was acknowledged."""
    arguments = ["--users", str(USERS), "--seconds", "1", "--connections", "4", "--workers", "1"]
    result = _measured(settings, "write", *arguments, "--generator", "built-in")

    assert ("on", "on") == (result["fsync"], result["synchronous_commit"])
    for operation in result["operations"]:
        delays = {delay["name"]: delay["sample"] for delay in operation["delays"]}
        assert all(sample["requests"] > 0 for sample in delays.values())
        assert delays["acknowledged"]["p50_ms"] < delays["past"]["p50_ms"] < 2000
    assert result["operations"][-1]["batch"] == 100


def test_soak_weighs_every_process(settings: Settings) -> None:
    arguments = ["--users", str(USERS), "--minutes", "0.04", "--workers", "2", "--generator", "built-in"]
    result = _measured(settings, "soak", *arguments)

    assert len(result["moments"]) >= 2
    for moment in result["moments"]:
        assert 2 == len(moment["resident_mib"])
        assert all(20 < mib < 500 for mib in moment["resident_mib"])


def test_users_are_kept_for_the_next_run(settings: Settings) -> None:
    """Then nobody is made up anew; a run without --keep cleans up."""
    arguments = ["rank", "--sizes", "200", "--seconds", "0.01", "--rounds", "1"]
    kept, again = _run(settings, *arguments, "--keep"), _run(settings, *arguments)

    assert "Making up users" in kept.stderr
    assert again.returncode == 0
    assert "Making up users" not in again.stderr


def test_a_redis_database_of_somebody_else_is_left_alone(settings: Settings) -> None:
    stores = Stores(settings.database_url, settings.redis_url, USERS)
    with redis.Redis.from_url(stores.redis_url) as client:
        client.set("precious", "1")
        done = _run(settings, "rank", "--sizes", "200")
        held = client.get("precious"), client.get(MARK)
        client.delete("precious")

    assert 2 == done.returncode
    assert "benchmark.py: database 9 of that Redis is not empty" in done.stderr
    assert (b"1", None) == held


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rank", "--sizes", "many"], "--sizes takes whole numbers"),
        (["http", "--users", "200", "--only", "rank,nothing"], "--only knows no nothing"),
        (["write", "--connections", "x"], "--connections takes whole numbers"),
    ],
)
def test_wrong_arguments_are_told_in_a_sentence(settings: Settings, arguments: list[str], sentence: str) -> None:
    done = _run(settings, *arguments)

    assert 2 == done.returncode
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_that_runs_already_is_measured_as_it_is(settings: Settings) -> None:
    """By the users that it has; their ratings stay, unless it is asked for."""
    migrate(settings.database_url)
    demo.fill(settings.database_url, 30)
    with serving(settings.database_url, settings.redis_url) as service:
        wait_until(service.is_mirrored)
        before = service.rows()
        url = f"http://127.0.0.1:{service.settings.port}"
        arguments = ["http", "--url", url, "--generator", "built-in"]
        short = ["--seconds", "1", "--rounds", "1", "--connections", "2", "--only", "rank,put"]
        reads = _measured(settings, *arguments, *short)
        assert before == service.rows()
        writes = _measured(settings, *arguments, *short, "--writes")
        assert before != service.rows()

    assert (30, ["rank"]) == (reads["users"], [operation["name"] for operation in reads["operations"]])
    assert ["rank", "put"] == [operation["name"] for operation in writes["operations"]]
    assert all(operation["samples"][0]["failed"] == 0 for operation in writes["operations"])


def test_answers_of_the_mirror_are_not_counted_as_others(settings: Settings) -> None:
    with serving(settings.database_url, settings.redis_url) as service:
        wait_until(service.is_mirrored)
        url = f"http://127.0.0.1:{service.settings.port}"
        before = servers.ranked_elsewhere(url)
        assert "redis" == service.get("/leaderboard?limit=1").headers["X-Rank-Source"]

        assert servers.ranked_elsewhere(url) == before


def test_answers_of_the_other_store_are_counted(settings: Settings) -> None:
    """While Redis is away ranks come from Postgres: such a measurement is of something else."""
    migrate(settings.database_url)
    demo.fill(settings.database_url, 30)
    nowhere = "redis://127.0.0.1:1/0"
    with serving(settings.database_url, nowhere) as service:
        url = f"http://127.0.0.1:{service.settings.port}"
        before = servers.ranked_elsewhere(url)
        assert 200 == service.get("/leaderboard?limit=1").status_code

        assert servers.ranked_elsewhere(url) == before + 1
