"""What the tests of the full reconciliation share: damaging a board, running a pass, comparing everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import redis

from service.model import Change, UserId
from service.order import encode, member
from service.ranking.drift import DRIFTS, Report
from service.ranking.reconcile import Reconcile
from service.ranking.repair import Terms
from service.settings import Settings
from service.store import redis as redis_store
from service.store.feed import Feed
from service.store.inspection import Inspection
from service.store.mirror import Mirror

STATE, BOARD, USERS, NOTE = "{ladder}:state", "{ladder}:board", "{ladder}:users", "{ladder}:reconcile"

Session = psycopg.Connection[tuple[Any, ...]]


def insert(ledger: Session, count: int, prefix: str = "user") -> None:
    """Create users by SQL alone; every third is named as if it had been renamed."""
    ledger.execute(
        "INSERT INTO users (id, username, rating)"
        " SELECT %(prefix)s || n, %(prefix)s || '-' || n, 1400 + n %% 50 FROM generate_series(1, %(count)s) n",
        {"prefix": prefix, "count": count},
    )


def bypassing(ledger: Session, statement: str) -> None:
    """Run SQL as a restore or a replication worker would: no trigger sees it."""
    ledger.execute("SET session_replication_role = replica")
    ledger.execute(statement)
    ledger.execute("SET session_replication_role = origin")


def place(number: int) -> str:
    """The member of the board that belongs to the user of this number."""
    return member(f"user-{number}", UserId(f"user{number}"))


def held(version: int, name: str) -> str:
    """A field of the users hash."""
    return f"{version}|{encode(name)}"


async def reconcile(
    settings: Settings,
    *,
    dry_run: bool = False,
    force: bool = False,
    allow_rewind: bool = False,
    grace_seconds: float = 0.02,
    duty: float = 1,
    inspection: type[Inspection] = Inspection,
) -> Report:
    """Make one pass."""
    client = redis_store.connect_feed(settings.redis_url)
    try:
        async with Feed(settings.database_url) as feed:
            work = Reconcile(
                feed,
                Mirror(client),
                inspection(client),
                Terms(dry_run, force, allow_rewind, may_empty=force),
                duty=duty,
                grace_seconds=grace_seconds,
            )
            return await work.run()
    finally:
        await client.aclose()


def counts(report: Report) -> dict[str, int]:
    """What a report found, without the zeros."""
    return {name: getattr(report, name) for name in (*DRIFTS, "miscount") if getattr(report, name)}


def everything(board: redis.Redis) -> dict[bytes, object]:
    """Every key's content."""
    dump: dict[bytes, object] = {}
    for key in sorted(board.scan_iter()):
        kind = board.type(key)
        if kind == b"zset":
            dump[key] = board.zrange(key, 0, -1, withscores=True)
        else:
            dump[key] = board.hgetall(key) if kind == b"hash" else board.get(key)
    return dump


class _Interfering(Inspection):
    """Does something to the stores between the steps of a pass."""

    before: Any = staticmethod(lambda _: None)

    async def fix(self, *arguments: Any, **named: Any) -> list[bool]:
        self.before("fix")
        return await super().fix(*arguments, **named)

    async def differing(self, *arguments: Any, **named: Any) -> list[Change]:
        self.before("rows")
        return await super().differing(*arguments, **named)

    async def scan_users(self, *arguments: Any, **named: Any) -> tuple[str, list[UserId]]:
        self.before("users")
        return await super().scan_users(*arguments, **named)

    async def scan_board(self, *arguments: Any, **named: Any) -> tuple[str, list[bytes]]:
        self.before("board")
        return await super().scan_board(*arguments, **named)

    async def resync(self, *arguments: Any, **named: Any) -> bool:
        self.before("resync")
        return await super().resync(*arguments, **named)


def interfering(action: Callable[[str], object]) -> type[Inspection]:
    """Return an inspection that calls `action` with the name of the step that comes."""
    return type("_Interfering", (_Interfering,), {"before": staticmethod(action)})
