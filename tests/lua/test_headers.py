"""Every script keeps the conventions, by its text alone: header and body cannot drift apart."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from service.store import lua

from .headers import Source, complaints

SCRIPTS = {path.stem: path for path in sorted(lua.DIRECTORY.glob("*.lua"))}
INCLUDES = {path.stem: path for path in sorted((lua.DIRECTORY / "include").glob("*.lua"))}


@pytest.mark.parametrize("name", SCRIPTS)
def test_header_and_body_agree(name: str) -> None:
    """Parts in order, keys and arguments by number and name, replies, errors, commands, effects, wrapper."""
    assert [] == complaints(name, SCRIPTS[name].read_text(encoding="utf-8"))


def test_every_constant_is_a_script() -> None:
    """The wrapper names no script that is not there, and the scripts have names of their own."""
    assert sorted(SCRIPTS) == sorted(script.name for script in lua.ALL)
    assert len(lua.ALL) == len({script.sha for script in lua.ALL})


def test_includes_are_in_place_once_read() -> None:
    """What is sent to Redis names no include any more, and keeps the flags in its first line."""
    for script in lua.ALL:
        text = SCRIPTS[script.name].read_text(encoding="utf-8")

        assert "@include" not in script.text
        assert text.splitlines()[0] == script.text.splitlines()[0]


def test_an_include_is_shared() -> None:
    """A piece that one script uses belongs into that script."""
    used = Counter(include for path in SCRIPTS.values() for include in Source.of(path.read_text()).includes)

    assert set(INCLUDES) == set(used)
    assert [] == [include for include, scripts in used.items() if scripts < 2]


@pytest.mark.parametrize("name", INCLUDES)
def test_an_include_only_defines_local_functions(name: str) -> None:
    """And says in a comment above what they are for."""
    text = INCLUDES[name].read_text(encoding="utf-8")

    assert text.startswith("-- ")
    assert [] == [
        line for line in text.splitlines() if re.match(r"\S", line) and not re.match(r"--|local function \w|end$", line)
    ]


def test_a_missing_script_or_include_is_named(tmp_path: Path) -> None:
    """Whoever mistypes one is told at import which file was looked for."""
    (tmp_path / "typo.lua").write_text("-- @include nowhere\n")

    with pytest.raises(FileNotFoundError, match=r"include/nowhere\.lua"):
        lua.read("typo", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent\.lua"):
        lua.read("absent", tmp_path)


@pytest.mark.parametrize("script", lua.ALL, ids=lambda script: script.name)
def test_luacheck_finds_nothing(script: lua.Script, tmp_path: Path) -> None:
    """No global, no unused and no shadowing name in what is sent to Redis."""
    program = shutil.which("luacheck")
    if program is None:
        pytest.skip("luacheck is not installed")
    file = tmp_path / f"{script.name}.lua"
    file.write_text(script.text)

    found = subprocess.run(
        [program, "--no-config", "--no-color", "--std", "lua51", "--read-globals", "redis", "KEYS", "ARGV", "--", file],
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == found.returncode, found.stdout


@pytest.mark.parametrize("table", ["board", "users", "state", "user:<id>"])
def test_the_data_model_names_who_writes_a_key(table: str) -> None:
    """The table in lua/README.md and the effects in the headers list the same scripts."""
    (row,) = re.findall(
        rf"^\| `(?:\{{ladder\}}:)?{table}` \|.*\| ([^|]*) \|$", (lua.DIRECTORY / "README.md").read_text(), re.MULTILINE
    )
    key = "object" if table == "user:<id>" else table
    effects = {name: dict(Source.of(path.read_text()).header)["Effects"] for name, path in SCRIPTS.items()}

    assert sorted(name for name, effect in effects.items() if re.search(rf"\b{key}\b", effect)) == sorted(
        re.findall(r"\b[a-z_]{2,}\b", row)
    )


@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("rank", "#!lua flags=no-writes\n", "", "no-writes flag is not set"),
        ("put", "-- Summary", "#!lua flags=no-writes\n-- Summary", "no-writes flag is set"),
        ("rank", "-- Effects      read-only", "-- Effects      writes board", "the effects are"),
        ("rank", '"ZSCORE"', '"ZADD"', "the effects are"),
        ("rank", "-- Why atomic ", "-- Atomic     ", "the header's parts are"),
        ("rank", "-- KEYS[2] ", "-- KEYS[4] ", "the header's parts are"),
        ("rank", "-- Complexity   O(m log n), n = board size, m = ids\n", "", "the header's parts are"),
        (
            "apply",
            "-- ARGV[2]      token: the one the caller read, or wrote with its previous batch\n",
            "",
            "header's parts",
        ),
        ("begin", "-- ARGV[7]      layout: number of this data layout\n", "", "ARGV: the header names 6"),
        ("begin", "ARGV[7]\n\n", "ARGV[8]\n\n", "ARGV: the header names 7"),
        ("begin", "#ARGV ~= 7", "ARGV[7] == nil", "outside the block of names"),
        ("begin", "seen: the epoch", "known: the epoch", "ARGV[1] is known in the header and seen in the body"),
        (
            "slice_at",
            "limit, offset = ARGV[1], whole(ARGV[2], 1, 1000), whole(ARGV[3], 0, 9007199254740991)",
            "offset, limit = ARGV[1], ARGV[2], ARGV[3]",
            "ARGV[2] is limit",
        ),
        ("put", "ARGV[2...] ", "ARGV[2] ", "the tail is read but not documented"),
        ("rank", "unpack(ARGV, 2)", "unpack(ARGV, 3)", "the tail is not walked"),
        ("put", 'return { "noepoch" }', 'return { "nothing" }', "the statuses are"),
        ("put", 'error_reply("BADARG put takes', 'error_reply("NOPE put takes', "the error codes are"),
        ("rank", "-- Errors       BADARG when", "-- Errors       BADIDS when", "the error codes are"),
        ("rank", '"HMGET", users_key', '"KEYS", users_key', "neither known to read nor allowed to write"),
        ("rank", '"HMGET", users_key', '"SCAN", users_key', "neither known to read nor allowed to write"),
        ("rank", '"HMGET", users_key', '"RANDOMKEY", users_key', "neither known to read nor allowed to write"),
        ("rank", 'redis.call("HMGET"', 'redis.call("hmget"', "not an upper-case literal"),
        ("rank", 'redis.call("HMGET"', 'redis.pcall("HMGET"', "redis offers more"),
        ("rank", "local held =", "held =", "global names are assigned: ['held']"),
        ("put", "local function rank_of", "function rank_of", "global names are assigned: ['rank_of']"),
        ("rank", "\n-- @include ready\n", "\n" * 400, "more than 400 lines"),
        ("rank", "Tells where users stand, all at one instant.", "Users. Ranks", "the summary is not one sentence"),
        ("rank", "hash tag of the board\n-- KEYS[2]", "\n-- KEYS[2]", "no rule for its slot"),
    ],
)
def test_the_checks_can_fail(name: str, old: str, new: str, complaint: str) -> None:
    """Each way of breaking a script by hand is complained about."""
    text = SCRIPTS[name].read_text(encoding="utf-8")
    assert old in text

    assert any(complaint in found for found in complaints(name, text.replace(old, new, 1)))


def test_a_script_without_a_wrapper_is_noticed() -> None:
    """A new file that nobody calls, or whose constant is called otherwise."""
    assert ["service/store/lua.py has no OTHER among ALL"] == complaints("other", SCRIPTS["rank"].read_text())
