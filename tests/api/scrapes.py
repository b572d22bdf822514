"""What the tests of metrics read from a scrape: every sample by its name and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from .serving import Service


class Scrape:
    """One answer of /metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: list[Metric] = list(text_string_to_metric_families(text))
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }
        self.names = {name for name, _ in self._values}

    def value(self, name: str, /, **labels: str) -> float | None:
        """The sample with exactly these labels, None if there is none."""
        return self._values.get((name, frozenset(labels.items())))

    def total(self, name: str, /, **labels: str) -> float:
        """The sum of the samples that have these labels, whatever others."""
        wanted = labels.items()
        return sum(value for (found, held), value in self._values.items() if found == name and wanted <= set(held))

    def labels(self, name: str) -> set[str] | None:
        """The labels that the samples of this name have, None if there is no sample."""
        found = [{label for label, _ in held} for known, held in self._values if known == name]
        return set().union(*found) if found else None

    def counts(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """What must never fall: counters and histograms, without those of single processes."""
        kinds = {family.name: family.type for family in self.families}
        rising = {
            sample.name
            for family in self.families
            for sample in family.samples
            if kinds[family.name] in ("counter", "histogram") and not family.name.startswith("process_")
        }
        return {key: value for key, value in self._values.items() if key[0] in rising}


def scrape(service: Service) -> Scrape:
    """What the service says of itself, over whatever connection there is."""
    answer = service.get("/metrics")
    assert answer.status_code == 200, answer.text
    return Scrape(answer.text)
