"""Where a user stood day by day, over HTTP."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from service.ranking.drift import Report
from service.ranking.rating_history import record
from service.store.feed import Feed
from service.store.rating_history import RatingHistory
from tests.servers.own_postgres import own_postgres
from tests.servers.own_redis import own_redis

from .serving import ROOT, Service, serving, wait_until
from .shapes import assert_problem, fresh_name

Item = dict[str, object]


def item(ago: int, rating: int, rank: int, position: int) -> Item:
    """A day as the wire shows it, so many days ago."""
    return {"day": str(today() - timedelta(days=ago)), "rating": rating, "rank": rank, "position": position}


def today() -> date:
    return datetime.now(UTC).date()


def written(service: Service, user_id: str, *items: Item) -> None:
    """Write rows by SQL alone."""
    with psycopg.connect(service.settings.database_url, autocommit=True) as connection:
        for row in items:
            connection.execute(
                "INSERT INTO rating_history (user_id, day, rating, rank, position)"
                " VALUES (%(id)s, %(day)s, %(rating)s, %(rank)s, %(position)s)",
                {"id": user_id, **row},
            )


def items(service: Service, target: str) -> list[Item]:
    """The days that an answer shows."""
    answer = service.get(target)
    assert 200 == answer.status_code, answer.text
    found: list[Item] = answer.json()["items"]
    return found


@pytest.fixture(scope="module")
def walker(service: Service) -> list[Item]:
    """A user with rows on some days, and a user with none."""
    rows = [
        item(*row) for row in ((400, 900, 9, 10), (399, 901, 8, 8), (30, 902, 7, 7), (29, 903, 6, 6), (0, 904, 1, 2))
    ]
    service.created("walker", id="walker")
    service.created("stander", id="stander")
    written(service, "walker", *rows)
    return rows


def test_a_window_has_the_days_with_a_row_and_the_last_one_before(service: Service, walker: list[Item]) -> None:
    """Thirty days unless asked otherwise, today among them; oldest first."""
    answer = service.get("/users/walker/history")

    assert (200, "application/json") == (answer.status_code, answer.headers["content-type"])
    assert ["id", "items"] == list(answer.json())
    assert ["day", "rating", "rank", "position"] == list(answer.json()["items"][0])
    assert {"id": "walker", "items": walker[2:]} == answer.json()
    assert walker[2:] == items(service, "/users/walker/history?days=30")
    for days, first in ((1, 3), (29, 3), (30, 2), (31, 1), (399, 1), (400, 0)):
        assert walker[first:] == items(service, f"/users/walker/history?days={days}"), days


@pytest.mark.usefixtures("walker")
def test_who_never_changed_has_an_empty_history(service: Service) -> None:
    """A user is not unknown for that."""
    assert [] == items(service, "/users/stander/history")


@pytest.mark.usefixtures("walker")
def test_it_says_how_long_it_may_be_kept_and_not_who_ranked(service: Service) -> None:
    """By the asker alone: a shared cache would show whoever has been deleted."""
    headers = service.get("/users/walker/history").headers

    assert "private, max-age=60" == headers["cache-control"]
    assert not {"x-rank-source", "x-mirror-lag-ms", "x-data-stale"} & set(headers)


@pytest.mark.usefixtures("walker")
@pytest.mark.parametrize("text", ["0", "401", "-1", "1.0", "", "x", "030", "%31%30%30%30"])
def test_a_number_of_days_is_from_1_to_400(service: Service, text: str) -> None:
    assert_problem(service.get(f"/users/walker/history?days={text}"), "validation", "days")


@pytest.mark.usefixtures("walker")
def test_what_is_wrong_is_refused(service: Service) -> None:
    """As everywhere."""
    assert_problem(service.get("/users/walker/history?days=1&days=1"), "validation", "days")
    assert_problem(service.get("/users/walker/history?limit=1"), "validation", "limit")
    assert_problem(service.get("/users/a%20b/history"), "validation", "id")
    assert_problem(service.get("/users/nobody/history"), "not-found")
    assert_problem(service.client.post("/users/walker/history", json={}), "method-not-allowed")
    assert "GET" in service.client.options("/users/walker/history").headers["allow"]


def test_a_deleted_user_has_no_past(service: Service) -> None:
    """Nor has whoever is created under their id, nor is anything left in the table."""
    name = fresh_name("mortal")
    service.created(name, id=name)
    service.created(f"{name}-other", id=f"{name}-other")
    written(service, name, item(3, 1000, 1, 1))
    written(service, f"{name}-other", item(3, 1000, 1, 2))

    assert 204 == service.client.delete(f"/users/{name}").status_code
    assert_problem(service.get(f"/users/{name}/history"), "not-found")
    service.created(name, id=name)
    assert [] == items(service, f"/users/{name}/history")
    assert 1 == len(items(service, f"/users/{name}-other/history"))


def test_it_shows_what_the_job_wrote(database_url: str) -> None:
    """Ranks and positions are the ones that the board shows at that moment; many ask at once, each for their own."""
    with own_redis() as server, serving(database_url, server.url) as running:
        server.start()
        for number in range(40):
            running.created(f"player{number:02}", id=f"p{number}", rating=1500 + number % 7)
        wait_until(running.is_mirrored)
        shown = {row["id"]: row for row in running.get("/leaderboard").json()["items"]}
        asyncio.run(_recorded(database_url))
        histories = asyncio.run(_all_at_once(running, list(shown)))

        for user_id, row in shown.items():
            expected = item(1, int(str(row["rating"])), int(str(row["rank"])), int(str(row["position"])))
            assert [expected] == histories[user_id]


async def _recorded(database_url: str) -> None:
    async with Feed(database_url) as feed:
        now = datetime.now(UTC) - timedelta(days=1)
        await record(RatingHistory(feed), Report(), source="x", now=now.replace(hour=12))


async def _all_at_once(running: Service, ids: list[str]) -> dict[str, list[Item]]:
    answers = await asyncio.gather(*(asyncio.to_thread(items, running, f"/users/{name}/history") for name in ids))
    return dict(zip(ids, answers, strict=True))


def test_the_script_writes_it_without_redis_too(database_url: str) -> None:
    """It is written and read while Redis is away; the comparison is what fails."""
    with own_redis() as server, serving(database_url, server.url) as running:
        running.created("alone", id="alone", rating=1234)
        environment = {**os.environ, "DATABASE_URL": database_url, "REDIS_URL": server.url}
        command = [sys.executable, str(ROOT / "scripts" / "reconcile.py"), "--json"]
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        (shown,) = items(running, "/users/alone/history")

        assert 5 == done.returncode, done.stderr
        assert (1234, 1, 1) == (shown["rating"], shown["rank"], shown["position"])


def test_without_postgres_it_is_unavailable() -> None:
    """And back with it."""
    with own_redis() as mirror, own_postgres() as server:
        server.start()
        with serving(server.url, mirror.url) as running:
            wait_until(lambda: running.post({"username": "ada", "id": "ada"}).status_code in (201, 409))
            server.kill()
            assert_problem(running.get("/users/ada/history"), "unavailable")
            server.start()
            wait_until(lambda: running.get("/users/ada/history").status_code == 200)
