"""
`benchmark.py report`: docs/benchmarks.md and its plots, made of the JSON that the other parts wrote.

Nothing in the page is typed by hand but the notes: what explains a target that was not met, and remarks on how a part was
measured (notes.toml beside the JSON).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

import msgspec

from service.arguments import Unusable

from . import tables, targets
from .results import HttpResult, RankResult, Results, SoakResult, WriteResult

if TYPE_CHECKING:
    import argparse

    from .results import Environment

T = TypeVar("T")
Notes = dict[str, dict[str, str]]
"""By what: `explained` what was not met, by target; `remarks` on a part, by its name."""
PLOTS = ("latency", "throughput")
_TEXT = Path(__file__).with_name("report.md")


def run(options: argparse.Namespace, output: TextIO | None) -> str:
    """
    Write the page and the plots; return a sentence that says so. The page `-` goes to `output`.

    Raises `Unusable`, and `OSError` for what cannot be written.
    """
    results, notes = read(options.input)
    text = page(results, notes, options.input.name)
    if options.page == "-":
        if output is None:
            raise Unusable("standard output is closed")
        output.write(text)
        name = "The page"
    else:
        target = Path(options.page) if options.page else options.input.with_suffix(".md")
        target.write_text(text, encoding="utf-8")
        name = target.name
    if options.no_plots:
        return f"{name} is written."
    try:
        from . import plots  # noqa: PLC0415  only here is matplotlib needed
    except ImportError:
        return f"{name} is written; matplotlib is not installed here, so the plots stay as they are."
    plots.draw(results, options.input)
    return f"{name} and its plots are written."


def read(directory: Path) -> tuple[Results, Notes]:
    """Read what was measured, and the notes."""
    results = Results(
        _result(directory / "rank.json", RankResult),
        _result(directory / "http.json", HttpResult),
        _result(directory / "write.json", WriteResult),
        _result(directory / "soak.json", SoakResult),
    )
    if results == Results():
        message = f"there is nothing in {directory} to report of: measure with --output {directory}"
        raise Unusable(message)
    notes = directory / "notes.toml"
    return results, tomllib.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {}


def _result(file: Path, kind: type[T]) -> T | None:
    if not file.exists():
        return None
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except msgspec.MsgspecError as error:
        message = f"{file} is not what this version writes ({error})"
        raise Unusable(message) from error


def page(results: Results, notes: Notes, directory: str) -> str:
    """Return the page, in Markdown."""
    pieces = {
        "targets": targets.table(results, notes.get("explained", {})),
        "environments": _environments(results),
        "rank": _rank(results.rank),
        "http": _http(results.http),
        "write": _write(results.write),
        "soak": _soak(results.soak, notes.get("remarks", {}).get("soak", "")),
        "directory": directory,
    }
    text = _TEXT.read_text(encoding="utf-8")
    for name, piece in pieces.items():
        text = text.replace(f"{{{{{name}}}}}", piece.rstrip("\n"))
    return text


def _environments(results: Results) -> str:
    lines = [
        "| part | processor | memory | kernel | Python | PostgreSQL | Redis | revision | date |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    parts = {name: getattr(results, name) for name in ("rank", "http", "write", "soak")}
    lines += [_environment(name, result.environment) for name, result in parts.items() if result]
    return "\n".join(lines)


def _environment(part: str, where: Environment) -> str:
    return (
        f"| `{part}` | {where.cores} x {where.cpu} | {where.memory_gib:.0f} GiB | {where.kernel} | {where.python}"
        f" | {where.postgres.removeprefix('PostgreSQL ')} | {where.redis} | {where.revision} | {where.date} |"
    )


_NOTHING = "Not measured here yet."


def _rank(result: RankResult | None) -> str:
    if result is None:
        return _NOTHING
    head = f"{result.rounds} rounds of {result.seconds:g} s each, seed {result.seed}.\n"
    parts = [f"### {size.users:,} users\n\n{tables.rank(size)}" for size in result.sizes]
    memory = f"### Memory\n\nBytes a user, by MEMORY USAGE of every element.\n\n{tables.memory(result)}"
    return "\n".join([head, *parts, memory, *(f"{sentence}\n" for sentence in result.missing)])


def _http(result: HttpResult | None) -> str:
    if result is None:
        return _NOTHING
    head = (
        f"{result.users:,} users, {result.workers} processes that serve, {result.rounds} rounds of {result.seconds:g} s"
        f" each, seed {result.seed}."
    )
    return f"{head}\n\n{tables.http(result)}"


def _write(result: WriteResult | None) -> str:
    if result is None:
        return _NOTHING
    head = (
        f"{result.users:,} users, {result.workers} processes that serve, {result.seconds:g} s each, seed {result.seed};"
        f" `fsync` {result.fsync}, `synchronous_commit` {result.synchronous_commit}."
    )
    return f"{head}\n\n{tables.write(result)}"


def _soak(result: SoakResult | None, remark: str) -> str:
    if result is None:
        return _NOTHING
    head = (
        f"{result.users:,} users, {result.workers} processes that serve, {result.connections} connections,"
        f" {result.minutes:g} minutes, seed {result.seed}."
    )
    return f"{head}\n\n{tables.soak(result)}\n{remark}"
