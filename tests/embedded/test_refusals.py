"""When the embedded pair does not start: nothing is damaged, and one sentence says what to do."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import pytest

from service.embedded import EmbeddedError, EmbeddedPair, postgres, start_pair
from tests.embedded.processes import is_usable, owner_process, postmaster, sockets, told

pytestmark = pytest.mark.usefixtures("embedded")


def test_second_start_is_refused(data: Path) -> None:
    """A data directory in use is not touched; the refusal names the directory and the process that uses it."""
    with start_pair(data) as pair:
        with pytest.raises(EmbeddedError, match=f"{re.escape(str(data))} is in use .* process {os.getpid()}:"):
            start_pair(data).__enter__()

        assert is_usable(pair)


def test_one_of_many_racing_starts_wins(fresh: Path) -> None:
    """Of several processes that start a pair over one directory at once, one gets it and the others are told so."""
    with contextlib.ExitStack() as stack:
        racers = [stack.enter_context(owner_process(fresh)) for _ in range(4)]
        answers = [told(racer) for racer in racers]

        assert sum(isinstance(answer, EmbeddedPair) for answer in answers) == 1
        assert all("is in use" in answer for answer in answers if isinstance(answer, str))
        for racer in racers:
            racer.communicate()


def test_socket_directory_of_somebody_else_is_refused(data: Path) -> None:
    """A file planted under the predictable name of the socket directory stops the start and is not touched."""
    with start_pair(data) as pair:
        planted = sockets(pair)
    planted.write_text("mine")
    try:
        with pytest.raises(EmbeddedError, match=f"{planted} belongs to somebody else"):
            start_pair(data).__enter__()

        assert planted.read_text() == "mine"
    finally:
        planted.unlink()


def test_unusable_data_directory_is_explained(tmp_path: Path) -> None:
    """A data directory that is a file is refused with a sentence, not with a traceback of the operating system's."""
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(EmbeddedError, match=f"{re.escape(str(file))} cannot be used .*Not a directory"):
        start_pair(file).__enter__()


def test_missing_wheels_name_the_platform_and_the_ways_out(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no wheels, one sentence names the platform and every variable that helps."""
    monkeypatch.delenv("PG_BIN", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr("platform.machine", lambda: "riscv64")

    with pytest.raises(EmbeddedError, match=r"-riscv64 .*DATABASE_URL and REDIS_URL.*PG_BIN and REDIS_BIN.*\.$"):
        start_pair(fresh).__enter__()
    assert not fresh.exists()


def test_windows_is_refused(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, which has neither the signals nor the locks, the refusal says what to do instead."""
    monkeypatch.setattr("platform.system", lambda: "Windows")

    with pytest.raises(EmbeddedError, match="Windows: use WSL, or set DATABASE_URL and REDIS_URL"):
        start_pair(fresh).__enter__()


@pytest.mark.parametrize("variable", ["PG_BIN", "REDIS_BIN"])
def test_wrong_program_is_named(fresh: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A variable that names no program is named in the refusal, with its value."""
    monkeypatch.setenv(variable, "/nowhere")

    with pytest.raises(EmbeddedError, match=f"^{variable} is /nowhere, "):
        start_pair(fresh).__enter__()


def test_server_that_does_not_start_says_why(data: Path) -> None:
    """The refusal repeats what the server said last and names its log; the other server is stopped."""
    for part in (data / "valkey" / "appendonlydir").glob("*.manifest"):
        part.write_text("nonsense\n")

    with pytest.raises(
        EmbeddedError, match=r"^The embedded Valkey did not start: FATAL AOF MANIFEST .*valkey\.log\)\.$"
    ):
        start_pair(data).__enter__()
    with pytest.raises(FileNotFoundError):
        postmaster(data)


@pytest.mark.parametrize("character", ["$", '"', "`", "\\"])
def test_programs_below_a_name_with_a_meaning_for_the_shell_are_refused(tmp_path: Path, character: str) -> None:
    """As of a checkout of that name: initdb itself would fail without a word."""
    with pytest.raises(EmbeddedError, match=f"hands that path to a shell.*: {re.escape(character)}; move that, or"):
        postgres._check_paths(tmp_path / f"a{character}b" / "initdb", tmp_path)


def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """Of the programs or of the data."""
    for paths in ((tmp_path, Path("/", "x" * 1000)), (Path("/", "x" * 1000), tmp_path)):
        with pytest.raises(EmbeddedError, match=r"takes no path longer than 900 bytes, as /x+ is; move that, or"):
            postgres._check_paths(*paths)


def test_cluster_of_another_major_version_is_explained(data: Path) -> None:
    """A cluster that another major version of PostgreSQL made is refused with both versions."""
    (data / "postgres" / "PG_VERSION").write_text("13\n")

    with pytest.raises(EmbeddedError, match="was made by PostgreSQL 13 and cannot be used by PostgreSQL"):
        start_pair(data).__enter__()
