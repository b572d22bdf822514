"""
A continuous check: of some of the users that the mirror has just served, whether Postgres says the same.

It finds what nothing else would before the next full reconciliation: a defect of ours, or somebody at work in Redis.
A write on its way is no mismatch, so each that looks like one is looked at again after 1, 10 and 60 seconds, and
counted at each of these horizons at which it is still there. It runs beside the requests and never holds one up.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import structlog

from service import metrics, tasks
from service.errors import LadderError
from service.model import Change, UserId, Version
from service.ranking.drift import judge
from service.store.mirror import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from service.ranking.drift import Finding
    from service.store.inspection import Entry, Inspection
    from service.store.ledger import Ledger
    from service.store.mirror import Mirror

HORIZONS = (1, 10, 60)
"""Seconds after which a mismatch is looked at again."""
MAX_OPEN = 32
"""Users under examination at once; more are dropped."""
MAX_LOOKS = 2
"""Looks at the stores at once: what else is open waits, which costs nobody anything."""

_log = structlog.get_logger(__name__)


class Sampler:
    """
    The check of one mirror against its ledger; `share` of the reads that it is told of are sampled.

    Of what was sampled: `agreed` at once or later, `dropped` because too much was open, `unknown` because a store
    could not be asked or the board was not to be read; `mismatches` by seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        mirror: Mirror,
        inspection: Inspection,
        *,
        source: Callable[[], str],
        share: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._ledger, self._mirror, self._inspection = ledger, mirror, inspection
        self._source = source
        self._share = share
        self._sleep, self._chance = sleep, chance
        self._open: set[asyncio.Task[None]] = set()
        self._looks = asyncio.Semaphore(MAX_LOOKS)
        self.sampled = self.agreed = self.dropped = self.unknown = 0
        self.mismatches = dict.fromkeys(HORIZONS, 0)

    def saw(self, user_id: UserId) -> None:
        """Note that the mirror has served a user; returns at once."""
        if self._chance() >= self._share:
            return
        self.sampled += 1
        if len(self._open) >= MAX_OPEN:
            self.dropped += 1
            metrics.SAMPLES.labels("dropped").inc()
            return
        task = asyncio.get_running_loop().create_task(self._examine(user_id))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def close(self) -> None:
        """Give up what is open."""
        await tasks.end(self._open)

    async def _examine(self, user_id: UserId) -> None:
        try:
            await self._compare(user_id)
        except (LadderError, Refused):
            self.unknown += 1
            metrics.SAMPLES.labels("unknown").inc()
        except Exception:  # noqa: BLE001  a defect here must not be seen by anybody but the log
            self.unknown += 1
            metrics.SAMPLES.labels("unknown").inc()
            _log.exception("check.failed", user=user_id)

    async def _compare(self, user_id: UserId) -> None:
        wanted: Version | None = None
        waited = 0
        for horizon in (0, *HORIZONS):
            await self._sleep(horizon - waited)
            waited = horizon
            entry, change = await self._look(user_id)
            finding = judge(user_id, entry, change, newest=Version(0))
            if finding is None or _is_on_its_way(finding, entry, wanted):
                self.agreed += 1
                metrics.SAMPLES.labels("agreed").inc()
                return
            # What Postgres said at the last look must have come by the next one; newer writes need not.
            wanted = change.version if change else None
            if horizon:
                self.mismatches[horizon] += 1
                metrics.MISMATCHES.labels(horizon).inc()
            if horizon == HORIZONS[-1]:
                metrics.SAMPLES.labels("differed").inc()
                _log.warning("check.mismatch", user=user_id, kind=finding.drift, mirror=entry.version, ledger=wanted)

    async def _look(self, user_id: UserId) -> tuple[Entry, Change | None]:
        """Read a user from Redis and then from Postgres: what was seen in Redis was committed before that."""
        async with self._looks:
            state = await self._mirror.state()
            if state is None or not (state.ready and state.intact and state.source == self._source()):
                raise Refused
            entry = (await self._inspection.peek([user_id], epoch=state.epoch))[user_id]
            user = (await self._ledger.users([user_id])).get(user_id)
        return entry, Change(user.id, user.version, user.rating, user.username) if user else None


def _is_on_its_way(finding: Finding, entry: Entry, wanted: Version | None) -> bool:
    return finding.drift == "stale" and wanted is not None and (entry.version or 0) >= wanted
