"""The dashboard and the alerts are about metrics and labels that a running service has, and every alert is explained."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import promql_parser
import pytest

from service import metrics

from .scrapes import Scrape, scrape
from .serving import ROOT, Service
from .shapes import fresh_name

DEPLOY = ROOT / "deploy"
RUNBOOK = "docs/operations.md"
TARGET_LABELS = {"job", "instance"}
"""What Prometheus adds to every sample."""
FUNCTIONS_OF_GRAFANA = {"$__rate_interval": "5m", "$__range": "1h"}
ALERTS = {
    *("MirrorLagging", "MirrorNotReady", "ServedFromPostgres", "BreakerOpen", "ErrorRatio", "SlowRequests"),
    *("ReconcileStale", "ReconcileFailed", "DriftFound", "RedisDown", "PostgresDown", "RateLimited", "Shedding"),
    *("ConsistencyMismatch", "Down"),
}


class Rule(msgspec.Struct, forbid_unknown_fields=True, rename={"lasting": "for"}):
    """An alert, as Prometheus reads it."""

    alert: str
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]
    lasting: str = "0s"


class Group(msgspec.Struct, forbid_unknown_fields=True):
    """Alerts that are looked at together."""

    name: str
    rules: list[Rule]


class Rules(msgspec.Struct, forbid_unknown_fields=True):
    """A file of them."""

    groups: list[Group]


def rules() -> list[Rule]:
    """Every alert."""
    read = msgspec.yaml.decode((DEPLOY / "prometheus" / "alerts.yml").read_bytes(), type=Rules)
    return [rule for group in read.groups for rule in group.rules]


def runbook() -> str:
    """What the operations' page says of alerts."""
    _, _, alerts = (ROOT / RUNBOOK).read_text(encoding="utf-8").partition("\n## Alerts\n")
    return alerts.partition("\n## ")[0]


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    read: dict[str, Any] = msgspec.json.decode((DEPLOY / "grafana" / "ladder.json").read_bytes())
    return read


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """The title of a panel, and each expression that it asks for."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for annotation in dashboard()["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def selectors(query: str) -> list[tuple[str, set[str]]]:
    """The metrics that a query names, with the labels that it picks them by; fails for one that is not PromQL."""
    for name, value in FUNCTIONS_OF_GRAFANA.items():
        query = query.replace(name, value)
    found: list[tuple[str, set[str]]] = []

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            assert node.name, f"a selector without a name in {query}"
            found.append((node.name, {matcher.name for matcher in node.matchers.matchers}))
        return True

    promql_parser.walk(promql_parser.parse(query), visit)
    return found


@pytest.fixture(scope="module")
def busy(service: Service) -> Scrape:
    """A scrape of a service of which everything was asked, and that has been reconciled."""
    user = str(service.created(fresh_name())["id"])
    for target in (f"/users/{user}", "/leaderboard", "/users/nobody", "/nowhere"):
        service.get(target)
    service.put(user, 1700)
    stores = {"DATABASE_URL": service.settings.database_url, "REDIS_URL": service.settings.redis_url}
    command = [sys.executable, str(ROOT / "scripts" / "reconcile.py")]
    subprocess.run(command, env={**os.environ, **stores}, capture_output=True, check=True)
    return scrape(service)


def test_the_alerts_are_those_that_are_promised() -> None:
    assert sorted(ALERTS) == sorted(rule.alert for rule in rules())


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.alert)
def test_an_alert_is_about_metrics_that_there_are(busy: Scrape, rule: Rule) -> None:
    """Its expression is PromQL over samples of a real scrape, by labels that they have."""
    _assert_known(busy, rule.expr)


@pytest.mark.parametrize(("title", "query"), list(dashboard_queries()))
def test_a_panel_is_about_metrics_that_there_are(busy: Scrape, title: str, query: str) -> None:
    _assert_known(busy, query)
    assert title


def _assert_known(busy: Scrape, query: str) -> None:
    used = selectors(query)
    assert used, query
    for name, labels in used:
        if name == "up":  # Prometheus' own word on whether a scrape came through
            continue
        held = busy.labels(name)
        if held is None:
            # A counter by labels has no sample before its first event; but it must be one of ours.
            assert name in _silent(), f"nobody counts {name}"
            continue
        assert labels <= held | TARGET_LABELS, f"{name} has no label {labels - held - TARGET_LABELS}"


def _silent() -> set[str]:
    families = (family for family in metrics.REGISTRY.collect() if family.type == "counter")
    return {f"{family.name}_total" for family in families}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.alert)
def test_an_alert_says_what_it_means_and_where_to_read_on(rule: Rule) -> None:
    """A summary, a description, how urgent it is; and its own section among the alerts of the operations' page."""
    assert {"summary", "description", "runbook_url"} == set(rule.annotations)
    assert all(rule.annotations.values())
    assert rule.labels["severity"] in ("page", "ticket")
    assert re.fullmatch(r"[0-9]+[smh]", rule.lasting)
    assert (
        f"{{{{ $externalLabels.ladder_docs }}}}/operations.md#{rule.alert.lower()}" == rule.annotations["runbook_url"]
    )
    sections = dict(re.findall(r"^### (\w+)\n\n(.+?)(?=\n#|\Z)", runbook(), flags=re.MULTILINE | re.DOTALL))
    assert len(sections[rule.alert]) > 100


def test_the_runbook_has_no_section_too_many() -> None:
    """An alert that is gone leaves nothing to read; its links lead somewhere."""
    page = (ROOT / RUNBOOK).read_text(encoding="utf-8")
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", page, flags=re.MULTILINE)}

    assert ALERTS == set(re.findall(r"^### (\w+)$", runbook(), flags=re.MULTILINE))
    assert set(re.findall(r"\]\(#([^)]+)\)", runbook())) <= headings


def test_the_configuration_loads_the_alerts_and_scrapes_the_service() -> None:
    path = DEPLOY / "prometheus" / "prometheus.yml"
    read = msgspec.yaml.decode(path.read_bytes(), type=dict[str, Any])

    assert ["alerts.yml"] == read["rule_files"]
    (job,) = read["scrape_configs"]
    assert ("ladder", "/metrics") == (job["job_name"], job["metrics_path"])


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """Its data source is a variable, no two panels have one id or lie upon each other, and each is explained."""
    read = dashboard()
    panels = read["panels"]
    graphs = [panel for panel in panels if panel["type"] != "row"]

    assert "datasource" == read["templating"]["list"][0]["type"]
    assert {"${datasource}"} == {panel["datasource"]["uid"] for panel in graphs} | {
        target["datasource"]["uid"] for panel in graphs for target in panel["targets"]
    }
    assert len(panels) == len({panel["id"] for panel in panels})
    cells = [cell for panel in panels for cell in _cells(panel["gridPos"])]
    assert len(cells) == len(set(cells))
    assert all(panel["title"] for panel in panels)
    assert all(panel["description"] for panel in graphs)


def _cells(place: dict[str, int]) -> list[tuple[int, int]]:
    assert place["x"] + place["w"] <= 24
    return [(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])]
