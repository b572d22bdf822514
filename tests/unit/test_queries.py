"""The SQL files: how they are read, and that every statement in them is somebody's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service import store
from service.store.postgres import QUERIES, load_queries

DIRECTORY = Path(str(store.__file__)).parent
FILES = sorted(DIRECTORY.glob("*.sql"))


def test_a_file_is_cut_at_its_names(tmp_path: Path) -> None:
    """A statement keeps its description and loses its semicolon; what stands before the first name is dropped."""
    file = tmp_path / "some.sql"
    file.write_text("-- Head.\n\n-- name: one\n-- Description.\nSELECT 1;\n\n-- name: two\n\nSELECT ';'\n;\n")

    assert {"one": "-- Description.\nSELECT 1", "two": "SELECT ';'\n"} == load_queries(file)


def test_a_name_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    """The second statement would silently take the place of the first."""
    file = tmp_path / "some.sql"
    file.write_text("-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;\n")

    with pytest.raises(ValueError, match=r"some\.sql: one is defined twice"):
        load_queries(file)


def test_a_file_without_names_has_no_statements(tmp_path: Path) -> None:
    """Comments alone are not one."""
    file = tmp_path / "some.sql"
    file.write_text("-- Nothing yet.\n")

    assert {} == load_queries(file)


def test_the_service_knows_its_queries() -> None:
    """Those of queries.sql."""
    assert load_queries(DIRECTORY / "queries.sql") == QUERIES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_statement_is_used_and_every_name_is_there(file: Path) -> None:
    """A statement nobody sends is not kept, and a name that is asked for exists."""
    used = {
        name
        for module in DIRECTORY.glob("*.py")
        for name in re.findall(r'"([a-z_]+)"', module.read_text(encoding="utf-8"))
    }

    assert [] == [name for name in load_queries(file) if name not in used]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_statement_says_what_it_is_for(file: Path) -> None:
    """In a comment that begins with a capital and ends with a full stop, before a single statement."""
    for name, text in load_queries(file).items():
        comment, statement = re.fullmatch(r"((?:-- [^\n]*\n)+)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]

        assert re.match(r"-- [A-Z]", comment), name
        assert comment.rstrip().endswith((".", ":")), name
        assert statement, name


def test_the_queries_are_one_statement_each() -> None:
    """Each is one round trip and sees one snapshot."""
    assert [] == [name for name, text in QUERIES.items() if ";" in re.sub(r"--[^\n]*", "", text)]
