"""The alert for a service that is away, as Prometheus' own tool evaluates it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.api.serving import ROOT

DEPLOY = ROOT / "deploy/prometheus"
LADDER = {"job": "games", "instance": "ladder-1:8080"}
OTHER = {"job": "node", "instance": "disk-1:9100"}


def test_the_runbooks_have_an_address() -> None:
    """An external label, so that it is set in one place."""
    labels = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["global"]["external_labels"]

    assert "https" == urlsplit(labels["ladder_docs"]).scheme
    assert not labels["ladder_docs"].endswith("/")


def series(name: str, labels: dict[str, str], values: str) -> dict[str, str]:
    """One series, as the tool notes it: a value a minute."""
    pairs = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{pairs}}}", "values": values}


@pytest.mark.parametrize(
    ("scraped", "at", "fired"),
    [
        # Both were scraped, and then neither is.
        ([("up", LADDER, "1 1 0x20"), ("ladder_redis_up", LADDER, "1 1 _x20"), ("up", OTHER, "0x20")], "10m", LADDER),
        # One of two.
        (
            [
                *(("up", LADDER, "1 1 0x20"), ("ladder_redis_up", LADDER, "1 1 _x20")),
                *(
                    ("up", {**LADDER, "instance": "b"}, "1x20"),
                    ("ladder_redis_up", {**LADDER, "instance": "b"}, "1x20"),
                ),
            ],
            "10m",
            LADDER,
        ),
        # It is well, and another job's target is not.
        ([("up", LADDER, "1x20"), ("ladder_redis_up", LADDER, "0x20"), ("up", OTHER, "0x20")], "10m", None),
        # It was never scraped.
        ([("up", OTHER, "1x20")], "10m", {}),
    ],
)
def test_down_is_about_ladder_whatever_the_job_is_called(
    tmp_path: Path, scraped: list[tuple[str, dict[str, str], str]], at: str, fired: dict[str, str] | None
) -> None:
    """And about no other target."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed")
    expected: list[dict[str, Any]] = []
    if fired is not None:
        where = fired.get("instance", "")
        expected = [
            {
                "exp_labels": {**fired, "severity": "page"},
                "exp_annotations": {
                    "summary": f"Ladder {f'on {where} ' if where else ''}does not answer",
                    "description": f"No scrape{f' of {where}' if where else ''} has come through for a minute.",
                    "runbook_url": "https://docs.example/operations.md#down",
                },
            }
        ]
    test = {
        "rule_files": [str(DEPLOY / "alerts.yml")],
        "tests": [
            {
                "interval": "1m",
                "external_labels": {"ladder_docs": "https://docs.example"},
                "input_series": [series(*one) for one in scraped],
                "alert_rule_test": [{"eval_time": at, "alertname": "Down", "exp_alerts": expected}],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [tool, "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stdout + done.stderr
