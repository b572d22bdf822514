"""What was measured, in Markdown tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .results import HttpResult


def http(result: HttpResult) -> str:
    """Requests a second and latency of each operation; medians of the rounds."""
    lines = [
        "| operation | connections | by | requests/s | p50 ms | p95 ms | p99 ms | of a bare handler | failed |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for operation in result.operations:
        share = operation.share_of_bare()
        times = " | ".join(f"{operation.latency_ms(name):.2f}" for name in ("p50", "p95", "p99"))
        lines.append(
            f"| {operation.title} | {operation.connections} | {operation.generator} | {operation.per_second():,.0f}"
            f" | {times} | {'' if share is None else f'{share:.0%}'} | {operation.failed():,} |"
        )
    return "\n".join(lines) + "\n"
