"""What docs/operations.md has an operator type, grant and look for is what the service says and needs."""

from __future__ import annotations

import asyncio
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import psycopg
import pytest
import redis
from psycopg import sql
from structlog.testing import capture_logs

from service.app import opened
from service.model import NewUser, UserId
from service.settings import Settings
from tests.api.serving import ROOT
from tests.conftest import Stores
from tests.faults.readers import served_by_redis, until
from tests.ranking.equality import assert_mirror_equals_ledger
from tests.ranking.test_reconcile_script import run
from tests.servers.own_redis import OwnRedis, own_redis

PAGE = (ROOT / "docs/operations.md").read_text()
SOURCES = [text for path in (ROOT / "service").rglob("*.py") if "get_logger" in (text := path.read_text())]
EVENT = re.compile(r'"([a-z_]+\.[a-z_]+)"')
NO_EVENTS = {"http.request", "cache.fill_failed", "reconcile.resumed", "reconcile.note_unreadable"}
"""A message of ASGI; of debugging; below what the script logs, or told by its exit code."""
ACL = re.compile(r"^user ladder on >PASSWORD (.*)$", re.MULTILINE)
SECRET = "letters"


def block(kind: str, containing: str) -> str:
    """The one block of code of that kind that has these words."""
    (found,) = [code for code in re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) if containing in code]
    return str(found)


def test_every_event_is_explained() -> None:
    """Each that the service may log has a line of the table."""
    logged = {event for source in SOURCES for event in EVENT.findall(source)} - NO_EVENTS
    rows = re.findall(r"^\| (`[a-z_.`, ]+`) \|", PAGE, re.MULTILINE)
    explained = {event for row in rows for event in re.findall(r"`([a-z_]+\.[a-z_]+)`", row)}

    assert {"mirror.put_pending", "mirror.withheld", "worker.died", "worker.died_again", "tail.interrupted"} <= logged
    assert set() == logged - explained


def test_every_option_of_the_reconciliation_is_explained() -> None:
    """And none that it has not."""
    script = [sys.executable, str(ROOT / "scripts/reconcile.py"), "--help"]
    told = subprocess.run(script, capture_output=True, text=True, check=True, timeout=60).stdout
    explained = set(re.findall(r"^\| `(--[a-z-]+)", PAGE, re.MULTILINE))

    assert explained == set(re.findall(r"^  (--[a-z-]+)", told.partition("options:")[2], re.MULTILINE))


def test_every_section_that_is_pointed_at_is_there() -> None:
    """On this page and from the units, so that nobody is sent nowhere."""
    headings = {
        re.sub(r"[^a-z -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }

    assert set(re.findall(r"\]\(#([a-z-]+)\)", PAGE)) <= headings


@pytest.fixture
def guarded_redis() -> Iterator[tuple[OwnRedis, str]]:
    """A Redis set as the page says, and the URL of the user that the page gives the fewest rights."""
    (rights,) = ACL.findall(PAGE)
    lines = [line.split() for line in block("conf", "maxmemory-policy").splitlines() if not line.startswith("#")]
    with own_redis() as server:
        server.start()
        with redis.Redis.from_url(server.url) as operator:
            for name, value in lines:
                if name != "requirepass":
                    operator.config_set(name, value)
            operator.execute_command("ACL", "SETUSER", "ladder", "reset", "on", f">{SECRET}", *rights.split())
        yield server, server.url.replace("unix://", "unix://ladder@") + f"?password={SECRET}"


@pytest.fixture
def least(stores: Stores, database_url: str) -> Iterator[str]:
    """The URL of a role with the rights that the page names."""
    role = f"ladder_test_{secrets.token_hex(6)}"
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), SECRET))
        try:
            owner.execute(block("sql", "GRANT").replace("ladder_app", role).encode())
            yield re.sub(r"//[^@]*@", f"//{role}:{SECRET}@", stores.url(owner.info.dbname))
        finally:
            owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


async def test_the_least_rights_are_enough(least: str, guarded_redis: tuple[OwnRedis, str], settings: Settings) -> None:
    """For everything that the service does, and for the reconciliation; Redis is set as it should be."""
    server, redis_url = guarded_redis
    own = msgspec.structs.replace(settings, database_url=least, redis_url=redis_url, migrate_on_start=False)
    ada, bob = UserId("ada"), UserId("bob")
    with capture_logs() as logs:
        async with opened(own) as ladder:
            for user_id in (ada, bob):
                await ladder.create(NewUser(user_id, f"player-{user_id}", 1500))
            await ladder.rate(ada, 1600)
            await ladder.rename(ada, "player-eve")
            await ladder.remove(bob)
            await until(lambda: served_by_redis(ladder))
            for arguments in ((), ("--rebase",), ("--incremental",)):
                done = await asyncio.to_thread(run, own, *arguments)
                assert 0 == done.returncode, done.stderr
            server.flush()
            await until(lambda: served_by_redis(ladder))
    await assert_mirror_equals_ledger(msgspec.structs.replace(settings, redis_url=server.url))

    assert [] == [entry for entry in logs if entry["event"] == "redis.settings"]
