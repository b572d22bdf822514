"""What was measured, in Markdown tables."""

from __future__ import annotations

from .results import HttpResult, RankResult, Size, SoakResult, WriteResult

Result = RankResult | HttpResult | WriteResult | SoakResult


def of(result: Result) -> str:
    """Everything of one result."""
    match result:
        case HttpResult():
            return http(result)
        case WriteResult():
            return write(result)
        case SoakResult():
            return soak(result)
    parts = [f"{size.users:,} users\n\n{rank(size)}" for size in result.sizes]
    return "\n".join([*parts, memory(result), *(f"{sentence}\n" for sentence in result.missing)])


def failed(result: Result) -> bool:
    """Whether some requests were not answered as they should have been."""
    match result:
        case HttpResult() | WriteResult():
            return any(operation.failed() for operation in result.operations)
        case SoakResult():
            return result.failed() > 0
    return False


def rank(size: Size) -> str:
    """What each way to ask costs; medians of the rounds."""
    lines = [
        "| way | p50 us | p95 us | p99 us | calls | ranks or pages/s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for timing in size.timings:
        times = " | ".join(f"{1000 * timing.latency_ms(name):,.0f}" for name in ("p50", "p95", "p99"))
        calls = sum(sample.requests for sample in timing.samples)
        lines.append(f"| {timing.title} | {times} | {calls:,} | {timing.per_second():,.0f} |")
    return "\n".join(lines) + "\n"


def memory(result: RankResult) -> str:
    """Bytes a user."""
    lines = [
        "| users | board | users' hash | together | bare sorted set of the ids | ratio |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for size in result.sizes:
        held = size.memory
        each = " | ".join(f"{part / size.users:.0f}" for part in (held.board, held.users, held.ladder, held.bare))
        lines.append(f"| {size.users:,} | {each} | {held.ladder / held.bare:.2f} |")
    return "\n".join(lines) + "\n"


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
    said = [
        f"{operation.title}: {operation.elsewhere:,} answers were not ranked by Redis."
        for operation in result.operations
        if operation.elsewhere
    ]
    return "\n\n".join(["\n".join(lines), *said, *result.missing]) + "\n"


def write(result: WriteResult) -> str:
    """Ratings a second, and how far the mirror was behind."""
    lines = [
        "| operation | ratings/s | p50 ms | p99 ms | failed | lag | after the answer | after a commit in SQL |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for operation in result.operations:
        times = " | ".join(f"{operation.latency_ms(name):.2f}" for name in ("p50", "p99"))
        delays = " | ".join(f"{delay.sample.p50_ms:.0f} / {delay.sample.max_ms:.0f}" for delay in operation.delays)
        lines.append(
            f"| {operation.title} | {operation.per_second():,.0f} | {times} | {operation.failed():,} | {delays} |"
        )
    return "\n".join(lines) + "\n"


def soak(result: SoakResult) -> str:
    """Memory of the processes over time, ten moments of it."""
    lines = ["| minute | MiB of each process that serves |", "|---:|---|"]
    step = max(len(result.moments) // 10, 1)
    shown = [*result.moments[:-1:step], result.moments[-1]]
    lines += [f"| {moment.minute:.1f} | {', '.join(f'{mib:.0f}' for mib in moment.resident_mib)} |" for moment in shown]
    rates = sorted(sample.per_second for sample in result.samples)
    rate = f"{rates[len(rates) // 2]:,.0f} requests/s, {result.failed():,} failed" if rates else "no load"
    return "\n".join([*lines, "", f"Meanwhile {rate}."]) + "\n"
