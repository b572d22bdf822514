"""docs/architecture.md names every file of the product, and the index every decision, so that nothing is found by luck."""

from __future__ import annotations

import re

import pytest

from tests.api.serving import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text()
INDEX = (ROOT / "docs/decisions/README.md").read_text()
FILES = [path.relative_to(ROOT / "service") for kind in ("py", "sql") for path in (ROOT / "service").rglob(f"*.{kind}")]
NAMED = {name.rpartition("/")[2] for name in re.findall(r"`([\w/.]+)`", PAGE)}
WHOLE_FOLDERS = {"arguments", "benchmark", "commands", "embedded", "migrations"}


@pytest.mark.parametrize("file", [str(path) for path in FILES if path.name != "__init__.py"])
def test_a_file_is_in_the_reading_table(file: str) -> None:
    """By its name, unless its folder is there as a whole."""
    *folders, name = file.split("/")

    assert name in NAMED or not WHOLE_FOLDERS.isdisjoint(folders)


def test_the_index_of_decisions_is_whole_and_in_order() -> None:
    """A line for each, under its own title."""
    decisions = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    titles = [path.read_text().splitlines()[0].removeprefix("# ").split(". ", 1) for path in decisions]
    lines = [f"| {number} | [{title}]({path.name}) |" for path, (number, title) in zip(decisions, titles, strict=True)]

    assert lines == re.findall(r"^\| \d.*$", INDEX, re.MULTILINE)
