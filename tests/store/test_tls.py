"""TLS to both stores, with a verified server and a client's certificate, as docs/operations.md has it."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from service.app import opened
from service.errors import Unavailable, explain
from service.model import NewUser, UserId
from service.ranking.ladder import Ladder
from service.settings import Settings
from service.store import redis
from service.store.migrate import migrate
from tests.api.serving import ROOT
from tests.faults.readers import served_by_redis, until
from tests.ranking.test_reconcile_script import run
from tests.servers.tls import authority, tls_postgres, tls_redis

PAGE = (ROOT / "docs/operations.md").read_text()
(LINES,) = re.findall(r"```conf\n(DATABASE_URL=.*sslmode=verify-full.*\nREDIS_URL='rediss:.*\n)```", PAGE)


class Stores(NamedTuple):
    """What the page has placeholders for."""

    postgres: str
    redis: str
    files: dict[str, Path]
    stranger: Path


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Both stores."""
    folder = tmp_path_factory.mktemp("tls")
    ours = authority(folder, "authority")
    server = ours.sign("server", "DNS:localhost")
    certificate, key = ours.sign("ladder")
    stranger = authority(folder, "stranger").certificate
    with tls_postgres(ours, *server) as postgres_port, tls_redis(ours, *server) as redis_port:
        yield Stores(
            f"localhost:{postgres_port}/postgres",
            f"localhost:{redis_port}/0",
            {"ca.crt": ours.certificate, "client.crt": certificate, "client.key": key},
            stranger,
        )


def variables(stores: Stores, folder: Path, **files: Path) -> dict[str, str]:
    """Read the lines of the page as a shell does, with these stores and files in them."""
    lines = LINES.replace("db.example:5432/ladder", stores.postgres).replace(
        ":PASSWORD@cache.example:6380/0", stores.redis
    )
    for name, file in {**stores.files, **files}.items():
        lines = lines.replace(f"/etc/ladder/{name}", str(file))
    (folder / "ladder.env").write_text(lines)
    told = subprocess.run(
        ["sh", "-c", 'set -a; . ./ladder.env; printf "%s\\n" "$DATABASE_URL" "$REDIS_URL"'],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    return dict(zip(("DATABASE_URL", "REDIS_URL"), told, strict=True))


async def refusals(env: dict[str, str]) -> tuple[str, str]:
    """What Postgres' and Redis' drivers say."""
    settings = Settings.from_env(env)
    with pytest.raises(Unavailable) as postgres:
        await asyncio.to_thread(migrate, settings.database_url)
    with pytest.raises(Unavailable) as mirror:
        await redis.ping(settings.redis_url)
    return explain(postgres.value), explain(mirror.value)


async def test_both_stores_are_used_with_verified_certificates(encrypted: Stores, tmp_path: Path) -> None:
    """By the service and by the reconciliation, with the URLs that the operator's page has."""
    settings = Settings.from_env({**variables(encrypted, tmp_path), "WORKERS": "1"})
    async with opened(settings) as ladder:
        await until(lambda: _created(ladder))
        await until(lambda: served_by_redis(ladder))
        done = await asyncio.to_thread(run, settings)
        assert 0 == done.returncode, done.stderr


async def _created(ladder: Ladder) -> bool:
    await ladder.create(NewUser(UserId("ada"), "player-ada", 1500))
    return True


async def test_a_server_of_another_authority_is_not_talked_to(encrypted: Stores, tmp_path: Path) -> None:
    """Its certificate is said to be the reason, for both stores."""
    for said in await refusals(variables(encrypted, tmp_path, **{"ca.crt": encrypted.stranger})):
        assert "certificate verify failed" in said


async def test_a_name_that_the_certificate_does_not_have_is_refused(encrypted: Stores, tmp_path: Path) -> None:
    """The address of the same server is another name."""
    env = {name: url.replace("localhost", "127.0.0.1") for name, url in variables(encrypted, tmp_path).items()}
    postgres, mirror = await refusals(env)

    assert "does not match host name" in postgres
    assert "IP address mismatch" in mirror


async def test_without_a_certificate_of_its_own_a_client_is_refused(encrypted: Stores, tmp_path: Path) -> None:
    """Postgres says what it misses; Redis ends the connection."""
    env = {
        name: re.sub("&(sslcert|sslkey|ssl_certfile|ssl_keyfile)=[^&]*", "", url)
        for name, url in variables(encrypted, tmp_path).items()
    }
    postgres, mirror = await refusals(env)

    assert "valid client certificate" in postgres
    assert mirror.startswith("Redis cannot be used now")
