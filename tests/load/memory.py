"""How much memory and how many files the workers of a service have."""

from __future__ import annotations

from pathlib import Path

from tests.api.serving import Service


def rss_kib(service: Service) -> int:
    """The memory of all workers together, in KiB."""
    lines = [line for pid in service.workers() for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def files(service: Service) -> int:
    """The files that all workers together have open, connections too."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in service.workers())
