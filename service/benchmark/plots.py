"""The plots of docs/benchmarks.md: what a rank costs over sizes, and how many requests a second are answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

if TYPE_CHECKING:
    from pathlib import Path

    from .results import HttpResult, RankResult, Results

_INK, _MUTED, _GRID = "#1f2933", "#616e7c", "#d9dee4"
_WAYS = {
    "sql-row-number": ("SQL row_number()", "#b4540a", "o"),
    "sql-count": ("SQL COUNT(*)", "#e08e45", "s"),
    "ladder": ("Ladder, its own client", "#3d7fc1", "D"),
    "ladder-store": ("Ladder, bare socket", "#12467f", "^"),
}
_DPI = 144
_PLAIN = StrMethodFormatter("{x:,.0f}")


def draw(results: Results, directory: Path) -> None:
    """Write every plot that there is something to show in, as SVG and PNG."""
    # The same picture gives the same bytes.
    mpl.rcParams["svg.hashsalt"] = "ladder"
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["font.size"] = 9
    if results.rank:
        _save(_latency(results.rank), directory / "latency")
    if results.http:
        _save(_throughput(results.http), directory / "throughput")


def _save(figure: Figure, stem: Path) -> None:
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
    figure.savefig(stem.with_suffix(".png"), dpi=_DPI, metadata={"Software": None})


def _latency(result: RankResult) -> Figure:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, (label, color, marker) in _WAYS.items():
        points = [
            (size.users, 1000 * timing.latency_ms("p50")) for size in result.sizes if (timing := size.timing(name))
        ]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, marker=marker, markersize=5, linewidth=1.8)
            users, last = points[-1]
            axes.annotate(label, (users, last), xytext=(8, 0), textcoords="offset points", va="center", color=color)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.08)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.3)  # room for the labels
    axes.set_xlabel("users", color=_INK)
    axes.set_ylabel("microseconds, p50", color=_INK)
    axes.set_title("One rank, one caller", loc="left", color=_INK, fontweight="bold")
    axes.xaxis.set_major_formatter(_PLAIN)
    axes.yaxis.set_major_formatter(_PLAIN)
    axes.grid(which="major", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _throughput(result: HttpResult) -> Figure:
    shown = [operation for operation in reversed(result.operations) if operation.connections > 1]
    figure = Figure(figsize=(7, 0.9 + 0.62 * len(shown)), layout="constrained")
    axes = figure.subplots()
    bare = {
        operation.name: operation.per_second() / share for operation in shown if (share := operation.share_of_bare())
    }
    most = max([*bare.values(), *(operation.per_second() for operation in shown)], default=1)
    for place, operation in enumerate(shown):
        rate = operation.per_second()
        if ceiling := bare.get(operation.name):
            axes.barh(place, ceiling, height=0.62, color="#e4e7eb")
            axes.annotate(
                f"{ceiling:,.0f}",
                (ceiling, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=_MUTED,
            )
        axes.barh(place, rate, height=0.62 if not operation.bare else 0.4, color="#12467f")
        inside = rate > 0.12 * most
        axes.annotate(
            f"{rate:,.0f}",
            (rate, place),
            xytext=(-4, 0) if inside else (4, 0),
            textcoords="offset points",
            va="center",
            ha="right" if inside else "left",
            color="white" if inside else _INK,
        )
    axes.set_yticks(range(len(shown)), [_short(operation.title) for operation in shown])
    axes.set_xlabel("requests a second; grey: a bare handler that returns the same bytes", color=_INK)
    axes.set_title(f"{result.users:,} users, {result.workers} processes", loc="left", color=_INK, fontweight="bold")
    axes.set_xlim(0, 1.12 * most)
    axes.xaxis.set_major_formatter(_PLAIN)
    axes.tick_params(colors=_MUTED)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _short(title: str) -> str:
    head, comma, rest = title.replace(" by ab -n 10000 -c 100, a connection a request", ", by ab").partition(", ")
    return f"{head}\n{rest}" if comma else head
