"""GET /metrics: what all workers counted, and how the stores and the mirror are at this moment, for Prometheus."""

from __future__ import annotations

import asyncio
import platform
import re
from typing import TYPE_CHECKING, Any

from litestar import Request, Response, get
from prometheus_client.metrics_core import GaugeMetricFamily

import service
from service import metrics
from service.api.health import examine
from service.api.operation import Operation, Says
from service.errors import LadderError
from service.ranking.coalesce import Coalescer
from service.ranking.drift import DRIFTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.api.health import Health
    from service.ranking.drift import Outcome
    from service.ranking.ladder import Ladder

_OPENMETRICS = re.compile(r"(?:^|,)\s*application/openmetrics-text\s*(?:[;,]|$)", re.IGNORECASE)

_METRICS = Operation(
    tag="Health",
    summary="Metrics",
    answers={200: Says("Prometheus' text.", "ladder_redis_up 1.0\n", ("Cache-Control",), "text/plain")},
)


@get("/metrics", opt={"long": True, "doc": _METRICS})
async def get_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return every metric, also while both stores are away; whichever worker is asked, it is the same."""
    wanted = ",".join(request.headers.getall("accept", []))
    text, media_type = await request.app.state.scrapes(bool(_OPENMETRICS.search(wanted)))
    headers = {"Cache-Control": "no-store", "Content-Type": media_type, "Vary": "Accept"}
    return Response(text, headers=headers)


def scrapes(ladder: Ladder) -> Coalescer[bool, tuple[bytes, str]]:
    """
    Return what makes the text and its media type, in OpenMetrics or not, once for all who ask meanwhile.

    No limit applies to this address, and each text is tens of milliseconds of work: a crowd that asks would
    otherwise keep everybody out.
    """

    async def make(formats: Sequence[bool]) -> list[tuple[bytes, str]]:
        health, outcome = await asyncio.gather(examine(ladder), _last_reconcile(ladder))
        present = list(_present(health, outcome))
        return [
            await asyncio.to_thread(metrics.exposition, present, as_openmetrics=as_openmetrics)
            for as_openmetrics in formats
        ]

    return Coalescer(make, shared=True, max_in_flight=1, name="scrapes")


async def _last_reconcile(ladder: Ladder) -> Outcome | None:
    try:
        return await ladder.last_reconcile()
    except LadderError:
        return None


def _present(health: Health, outcome: Outcome | None) -> Iterator[GaugeMetricFamily]:
    """Yield what is known now; what is not, such as the lag of a mirror that is away, is left out."""
    build = {"version": service.__version__, "python": platform.python_version()}
    yield _gauge("ladder_build_info", "What is running; always 1.", (build, 1))
    yield _gauge("ladder_redis_up", "Whether Redis answered just now.", ({}, health.redis.status == "up"))
    yield _gauge("ladder_postgres_up", "Whether Postgres answered just now.", ({}, health.postgres.status == "up"))
    yield _gauge("ladder_mirror_ready", "Whether ranks are read from the mirror.", ({}, health.mirror.ready))
    if health.mirror.lag_ms is not None:
        yield _gauge(
            "ladder_mirror_lag_seconds", "How far the mirror may be behind.", ({}, health.mirror.lag_ms / 1000)
        )
    if health.mirror.users is not None:
        yield _gauge("ladder_mirror_users", "Users on the board.", ({}, health.mirror.users))
    if outcome is not None:
        yield from _reconciled(outcome)


def _reconciled(outcome: Outcome) -> Iterator[GaugeMetricFamily]:
    report = outcome.report
    kinds = (*DRIFTS, "miscount")
    found = (({"kind": str(kind)}, abs(getattr(report, kind))) for kind in kinds)
    yield _gauge("ladder_reconcile_found", "What the last full reconciliation found, by kind.", *found)
    yield _gauge("ladder_reconcile_checked_users", "Users whom it compared.", ({}, report.checked))
    yield _gauge("ladder_reconcile_repaired", "What it repaired.", ({}, report.repaired))
    yield _gauge("ladder_reconcile_remaining", "What it found and left as it was.", ({}, report.remaining))
    yield _gauge(
        "ladder_reconcile_history_rows", "Rows that it wrote of the history of ratings.", ({}, report.history_rows)
    )
    yield _gauge("ladder_reconcile_duration_seconds", "How long it took.", ({}, report.duration_ms / 1000))
    yield _gauge("ladder_reconcile_exit_code", "How it ended; see docs/operations.md.", ({}, report.exit))
    yield _gauge("ladder_reconcile_timestamp_seconds", "When it ended.", ({}, outcome.ended_at))
    if outcome.completed_at is not None:
        yield _gauge(
            "ladder_reconcile_completed_timestamp_seconds",
            "When one last compared everything.",
            ({}, outcome.completed_at),
        )


def _gauge(name: str, help_text: str, *samples: tuple[dict[str, str], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text, labels=list(samples[0][0]))
    for labels, value in samples:
        family.add_metric(list(labels.values()), float(value))
    return family
