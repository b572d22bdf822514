"""Every read gives the model's numbers over HTTP, whichever store answers and whatever befalls the mirror meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.ranking.model import board
from tests.servers.own_redis import own_redis

from .serving import ROOT, Service, serving, wait_until
from .shapes import wire_row

TIED = 200
LOAD_SECONDS = 5


def populate(service: Service) -> None:
    """A tie of two hundred with people above and below, some of them tied too, and names that only bytes can order."""
    service.execute(
        "INSERT INTO users (id, username, rating)"
        f" SELECT 'id-' || n, CASE WHEN n % 3 = 0 THEN 'Tied.' WHEN n % 3 = 1 THEN 'tied_' ELSE 'tied-' END || n, 1500"
        f" FROM generate_series(1, {TIED}) n"
        " UNION ALL SELECT 'on-' || n, 'Other' || n, 100 + n * 700 % 4901 FROM generate_series(1, 12) n"
        " UNION ALL SELECT 'up-' || n, 'upper' || n, 5000 FROM generate_series(1, 3) n"
    )
    wait_until(service.is_mirrored)


def everything(service: Service) -> tuple[dict[str, Any], set[str]]:
    """What every read says, and which stores ranked."""
    rows = [wire_row(row) for row in board(service.rows())]
    some = [str(row["id"]) for row in rows[::13]]
    targets = [f"/users/{user_id}{what}" for user_id in some for what in ("", "/rank")]
    targets += [f"/users/{user_id}/neighbors?radius={radius}" for user_id in some[::3] for radius in (1, 5, 100)]
    targets += [f"/ratings/{rating}" for rating in (100, 1499, 1500, 1501, 5000)]
    targets += [f"/ratings/distribution?width={width}" for width in (7, 50, 1000)]
    targets += [f"/leaderboard?limit=60&offset={offset}" for offset in (0, 1, 50, 190, 210, 300)]
    targets += [f"/users/search?username={prefix}&limit=100" for prefix in ("tied", "TIED-", "upper", "nobody")]
    told, sources = {}, set()
    for target in targets:
        answer = service.get(target)
        assert 200 == answer.status_code, (target, answer.text)
        told[target] = answer.json()
        sources.add(answer.headers["x-rank-source"])
    cursor, walked = "", []
    while cursor is not None:
        page = service.get("/leaderboard?limit=45" + (f"&cursor={cursor}" if cursor else ""))
        walked += page.json()["items"]
        cursor = page.json()["next_cursor"]
    assert rows == walked
    told["/ranks"] = service.post({"user_ids": [row["id"] for row in rows]}, "/ranks").json()
    return told, sources


def modelled(service: Service) -> dict[str, Any]:
    """What some of them must say, straight from the contract's words."""
    rows = [wire_row(row) for row in board(service.rows())]
    ratings = [int(str(row["rating"])) for row in rows]
    found: dict[str, Any] = {"/ranks": {"items": rows, "not_found": []}}
    for row in rows[::13]:
        below = sum(rating <= int(str(row["rating"])) for rating in ratings)
        found[f"/users/{row['id']}/rank"] = {
            **{name: row[name] for name in ("id", "rating", "rank", "position")},
            "total": len(rows),
            "percentile": round(100 * below / len(rows), 2),
        }
    for offset in (0, 1, 50, 190, 210):
        found[f"/leaderboard?limit=60&offset={offset}"] = rows[offset : offset + 60]
    for rating in (1499, 1500, 1501):
        found[f"/ratings/{rating}"] = {
            "rating": rating,
            "rank": 1 + sum(other > rating for other in ratings),
            "percentile": round(100 * sum(other <= rating for other in ratings) / len(rows), 2),
            "users": ratings.count(rating),
        }
    return found


def assert_modelled(service: Service, told: dict[str, Any]) -> None:
    """They are the model's."""
    for target, expected in modelled(service).items():
        assert expected == (told[target]["items"] if target.startswith("/leaderboard") else told[target]), target


def test_answers_are_the_same_with_the_mirror_cold_or_away_or_under_reconciliation(database_url: str) -> None:
    """
    Mirrored; while a full reconciliation goes over it; without Redis; and while a load is held half way.

    A bucket narrower than 10 is counted by Postgres always.
    """
    with (
        own_redis() as server,
        serving(database_url, server.url, failpoints=f"load_mid=sleep:{LOAD_SECONDS}") as running,
    ):
        server.start()
        wait_until(running.is_mirrored)
        populate(running)
        mirrored, sources = everything(running)
        assert {"redis", "postgres"} == sources
        assert_modelled(running, mirrored)

        assert mirrored == reconciled(running)

        server.kill()
        without, sources = everything(running)
        assert mirrored == without
        assert {"postgres"} == sources

        server.forget()
        server.start()
        wait_until(lambda: running.at_failpoint("load_mid"))
        cold, sources = everything(running)
        assert mirrored == cold
        assert {"postgres"} == sources
        assert not [line for line in running.logged() if line["event"] == "mirror.loaded" and line["users"]]
        wait_until(running.is_mirrored)
        assert mirrored == everything(running)[0]
        assert [] == running.defects()


def reconciled(running: Service) -> dict[str, Any]:
    """What every read says while the whole board is compared; asserted to be the same from the first to the last."""
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "DATABASE_URL": running.settings.database_url,
        "REDIS_URL": running.settings.redis_url,
    }
    command = [sys.executable, str(ROOT / "scripts" / "reconcile.py"), "--json"]
    told, _ = everything(running)
    rounds = 0
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as program:
        while program.poll() is None:
            assert told == everything(running)[0]
            rounds += 1
        assert program.stdout
        report = json.loads(program.stdout.read())
    assert rounds
    assert (0, 0) == (program.returncode, report["remaining"])
    return told
