"""What Ladder is meant to reach on two cores with a million users, and whether it did: one row a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .results import Results, Size

READS = ("rank", "user", "page-25", "page-100", "neighbors")
USERS = 1_000_000
"""On the board, where nothing else is said."""
_SMALLEST, _LARGEST = 10_000, 10_000_000
_SOAK_MINUTES = 60


class Verdict(msgspec.Struct, frozen=True):
    """A target, and what was measured: None where nothing was."""

    key: str
    """Under which the notes explain it."""
    target: str
    measured: str | None
    met: bool


def verdicts(results: Results) -> list[Verdict]:
    """Judge everything."""
    return [
        _throughput(results, "rank", 15_000, p99_ms=8),
        _throughput(results, "user", 15_000, p99_ms=8),
        _throughput(results, "page-25", 10_000),
        _throughput(results, "page-100", 15_000),
        _throughput(results, "page-100-ab", 9_000),
        _throughput(results, "neighbors", 9_000),
        _throughput(results, "put", 7_500),
        _list(results),
        _ceiling(results),
        _against_sql(results),
        _growth(results),
        *_memory(results),
        _resident(results),
    ]


_NAMES = {
    "rank": "`GET /users/{id}/rank`",
    "user": "`GET /users/{id}`",
    "page-25": "`GET /leaderboard?limit=25`, random offsets",
    "page-100": "`GET /leaderboard?limit=100`, the same page",
    "page-100-ab": "the same by `ab -n 10000 -c 100`, a connection a request",
    "neighbors": "neighbors, 25 rows",
    "put": "`PUT /users/{id}/rating`, durable, fsync on",
}


def _throughput(results: Results, name: str, least: int, *, p99_ms: float | None = None) -> Verdict:
    target = f"{_NAMES[name]}: at least {least:,} requests/s{f', p99 at most {p99_ms:.0f} ms' if p99_ms else ''}"
    operation = results.operation(name)
    if operation is None:
        return Verdict(name, target, None, met=False)
    rate, slow = operation.per_second(), operation.latency_ms("p99")
    met = rate >= least and (p99_ms is None or slow <= p99_ms) and not operation.failed()
    if name == "put" and results.write:
        met = met and results.write.fsync == results.write.synchronous_commit == "on"
    return Verdict(
        name, target, f"{rate:,.0f} requests/s, p99 {slow:.1f} ms{_with(results)}", met and _is_large(results)
    )


def _list(results: Results) -> Verdict:
    target = "100 ranks in one request: p50 at most 2 ms at one connection"
    operation = results.operation("ranks-100")
    if operation is None:
        return Verdict("ranks-100", target, None, met=False)
    p50 = operation.latency_ms("p50")
    return Verdict("ranks-100", target, f"{p50:.2f} ms{_with(results)}", p50 <= 2 and _is_large(results))


def _is_large(results: Results) -> bool:
    return results.http is not None and results.http.users >= USERS


def _with(results: Results) -> str:
    """Say how many users there were, if that is not what the targets are for."""
    return f" (with {results.http.users:,} users)" if results.http and not _is_large(results) else ""


def _ceiling(results: Results) -> Verdict:
    target = "any read: at least 50 % of the requests/s of a bare handler of the same server and framework"
    shares = {
        _NAMES[name]: share
        for name in READS
        if (operation := results.operation(name)) and (share := operation.share_of_bare()) is not None
    }
    if not shares:
        return Verdict("ceiling", target, None, met=False)
    least = min(shares, key=shares.__getitem__)
    return Verdict(
        "ceiling",
        target,
        f"{shares[least]:.0%} ({least}) to {max(shares.values()):.0%}{_with(results)}",
        shares[least] >= 0.5 and _is_large(results),
    )


def _largest(results: Results) -> Size | None:
    return max(results.rank.sizes, key=lambda size: size.users) if results.rank and results.rank.sizes else None


def _against_sql(results: Results) -> Verdict:
    target = "a rank in the store, 1,000,000 users: at least 300 times as fast as `SELECT COUNT(*) WHERE rating > ?`"
    size = next((size for size in results.rank.sizes if size.users == USERS), None) if results.rank else None
    mirror, counted = (size.timing("ladder-store"), size.timing("sql-count")) if size else (None, None)
    if not (mirror and counted):
        return Verdict("against-sql", target, None, met=False)
    ours, theirs = mirror.latency_ms("p50"), counted.latency_ms("p50")
    return Verdict(
        "against-sql",
        target,
        f"{theirs / ours:,.0f} times (p50 {1000 * ours:.0f} us, {theirs:.1f} ms)",
        theirs / ours >= 300,
    )


def _growth(results: Results) -> Verdict:
    target = f"from {_SMALLEST:,} to {_LARGEST:,} users the latency of a rank grows by less than 2 times"
    sizes = sorted(results.rank.sizes, key=lambda size: size.users) if results.rank else []
    times = {
        size.users: timing.latency_ms("p50")
        for size in sizes
        if (timing := size.timing("ladder-store")) and size.users >= _SMALLEST
    }
    if len(times) < 2:
        return Verdict("growth", target, None, met=False)
    (fewest, least), *_, (most, last) = times.items()
    measured = f"{last / least:.1f} times from {fewest:,} to {most:,}"
    return Verdict("growth", target, measured, last / least < 2 and fewest == _SMALLEST and most >= _LARGEST)


def _memory(results: Results) -> list[Verdict]:
    ratio = "Redis: at most 1.6 times a bare sorted set of the same members"
    each = "Redis: at most 300 bytes a user with UUIDs for ids"
    size = _largest(results)
    if size is None:
        return [Verdict("memory-ratio", ratio, None, met=False), Verdict("memory", each, None, met=False)]
    held = size.memory
    by_members, by_ids, user = held.ladder / held.board, held.ladder / held.bare, held.ladder / size.users
    return [
        Verdict(
            "memory-ratio", ratio, f"{by_members:.2f} times; {by_ids:.2f} times one of the ids alone", by_members <= 1.6
        ),
        Verdict("memory", each, f"{user:.0f} bytes ({size.users:,} users)", user <= 300),
    ]


def _resident(results: Results) -> Verdict:
    target = "a process that serves: at most 120 MB resident after an hour of load, flat"
    soak = results.soak
    if soak is None:
        return Verdict("resident", target, None, met=False)
    megabytes = soak.largest_mib() * 2**20 / 1e6
    measured = f"{megabytes:.0f} MB after {soak.minutes:.0f} minutes, {soak.growth():+.1%} since a quarter of them"
    flat = soak.growth() < 0.05
    return Verdict("resident", target, measured, megabytes <= 120 and flat and soak.minutes >= _SOAK_MINUTES)


def table(results: Results, notes: Mapping[str, str]) -> str:
    """One row a target; what was not met is explained by the notes."""
    lines = ["| target | measured | met |", "|---|---|---|"]
    for verdict in verdicts(results):
        met = "yes" if verdict.met else "no" if verdict.measured else "not measured"
        note = "" if verdict.met else " ".join(notes.get(verdict.key, "").split())
        lines.append(f"| {verdict.target} | {verdict.measured or ''} | {met}{f': {note}' if note else ''} |")
    return "\n".join(lines) + "\n"
