"""The page on reliability names tests that exist, so that nobody believes in one that was renamed or removed."""

from __future__ import annotations

import re

from tests.api.serving import ROOT

PAGE = (ROOT / "docs/reliability.md").read_text()


def test_every_test_that_it_names_exists() -> None:
    """By file and function."""
    named = set(re.findall(r"((?:\w+/)*test_\w+\.py)(?:::(test_\w+))?", PAGE))
    assert len(named) > 40
    for path, function in named:
        places = [ROOT / "tests" / path, ROOT / path, *(ROOT / "tests").glob(f"*/{path}")]
        found = next((place for place in places if place.exists()), None)
        assert found, path
        assert not function or re.search(rf"def {function}\b", found.read_text()), (path, function)


def test_every_case_that_it_names_is_one() -> None:
    """Those of the faults under load."""
    cases = (ROOT / "tests/faults/test_stores_fail.py").read_text()
    for line in re.findall(r"fail(\[[^|;]*)", PAGE):
        for name in re.findall(r"\[([^]]+)\]", line):
            assert f'"{name}"' in cases, name
