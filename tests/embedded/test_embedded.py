"""The embedded pair against real servers: what lasts, what ends, who is refused and with which words."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis

from service import parent_death
from service.embedded import EmbeddedError, EmbeddedPair, open_pair, running_pair, start_pair
from service.embedded.programs import Programs, choose_account
from tests.embedded.processes import is_alive, postmaster, server_pids, sockets, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
AS_ROOT = os.geteuid() == 0

OWNER = """
import json, sys
from pathlib import Path
from service import parent_death
from service.embedded import EmbeddedError, start_pair

data, parent_death.kernel_tells = Path(sys.argv[1]), sys.argv[2] == "kernel" and parent_death.kernel_tells
try:
    with start_pair(data) as pair:
        print(json.dumps([pair.database_url, pair.redis_url]), flush=True)
        sys.stdin.read()
except EmbeddedError as error:
    print(json.dumps(str(error)), flush=True)
"""


@pytest.fixture(autouse=True, scope="module")
def _installed() -> None:
    try:
        Programs.find()
    except EmbeddedError as error:
        pytest.skip(str(error))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory that does not exist yet."""
    return tmp_path / "data"


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every account can pass through, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ladder-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@contextlib.contextmanager
def owner_process(data: Path, watch: str = "kernel", *, user: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Another process that starts a pair, tells its URLs or its error, and holds it until its stdin closes."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data), watch],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    ) as process:
        yield process


def told(process: subprocess.Popen[str]) -> EmbeddedPair | str:
    """What the other process said: its pair or its error."""
    assert process.stdout is not None
    answer = json.loads(process.stdout.readline())
    return answer if isinstance(answer, str) else EmbeddedPair(*answer)


def execute(pair: EmbeddedPair, statement: str) -> list[tuple[object, ...]]:
    """Run one statement and return its rows."""
    with psycopg.connect(pair.database_url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def is_usable(pair: EmbeddedPair) -> bool:
    """Whether both servers answer."""
    with redis.Redis.from_url(pair.redis_url) as client:
        return bool(client.ping()) and execute(pair, "SELECT 1") == [(1,)]


def test_data_lasts_over_restarts(data: Path) -> None:
    """What was written to either server before a stop is there after the next start."""
    with start_pair(data) as pair, redis.Redis.from_url(pair.redis_url) as client:
        execute(pair, "CREATE TABLE kept AS SELECT 42 AS answer")
        client.zadd("kept", {"alice": 1500})

    with start_pair(data) as pair, redis.Redis.from_url(pair.redis_url) as client:
        assert execute(pair, "SELECT answer FROM kept") == [(42,)]
        assert client.zscore("kept", "alice") == 1500


def test_servers_are_set_up_for_a_ledger_and_a_mirror(data: Path) -> None:
    """Commits are durable, text sorts the same everywhere, Valkey keeps all it is given, and nothing is on TCP."""
    settings = "SELECT current_setting('fsync'), current_setting('listen_addresses'), current_setting('TimeZone')"
    with start_pair(data) as pair, redis.Redis.from_url(pair.redis_url, decode_responses=True) as client:
        assert execute(pair, settings) == [("on", "", "UTC")]
        assert execute(pair, "SELECT datcollate FROM pg_database WHERE datname = current_database()") == [("C",)]
        assert execute(pair, "SELECT 'a' < 'B', lower('ÄB')") == [(False, "äb")]
        assert client.config_get("appendonly", "appendfsync", "save", "port", "maxmemory-policy") == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "port": "0",
            "maxmemory-policy": "noeviction",
        }


def test_socket_directory_is_private_and_goes_with_the_pair(data: Path) -> None:
    """Nobody else can open the directory of the sockets, and none of it is left after a stop."""
    with start_pair(data) as pair:
        directory = sockets(pair)

        assert directory.stat().st_mode & 0o777 == 0o700
    assert not directory.exists()


@pytest.mark.parametrize("watch", ["kernel", "guard"])
def test_servers_end_with_a_killed_owner(data: Path, watch: str) -> None:
    """`kill -9` of the process that started the pair ends both servers, cleanly, and the next start needs no help."""
    with owner_process(data, watch) as owner:
        pair = told(owner)
        assert isinstance(pair, EmbeddedPair)
        pids = server_pids(pair, data)
        execute(pair, "CREATE TABLE kept AS SELECT 42 AS answer")
        owner.kill()
        owner.wait()

        # At once, while the servers may still be on their way down.
        with start_pair(data) as successor:
            assert not any(map(is_alive, pids))
            assert execute(successor, "SELECT answer FROM kept") == [(42,)]
    assert "database system was not properly shut down" not in (data / "postgresql.log").read_text()


@pytest.mark.parametrize("watch", ["kernel", "guard"])
def test_owner_stops_both_servers(data: Path, watch: str) -> None:
    """A pair that is stopped leaves no process, whichever way its owner's death would have been noticed."""
    with owner_process(data, watch) as owner:
        pair = told(owner)
        assert isinstance(pair, EmbeddedPair)
        pids = server_pids(pair, data)
        owner.communicate()

        assert owner.returncode == 0
        assert not any(map(is_alive, pids))


def test_pid_file_of_a_killed_postmaster_is_no_obstacle(data: Path) -> None:
    """A killed PostgreSQL starts again with all it acknowledged, even if its pid is another process's by now."""
    with start_pair(data) as pair:
        execute(pair, "CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(postmaster(data), signal.SIGKILL)
    pid_file = data / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")

    with start_pair(data) as pair:
        assert execute(pair, "SELECT answer FROM kept") == [(42,)]


def test_half_made_cluster_is_made_anew(data: Path) -> None:
    """What an initdb that was killed half-way left behind is not taken for a cluster."""
    (data / "postgres.new").mkdir(parents=True)
    (data / "postgres.new" / "PG_VERSION").write_text("18\n")

    with start_pair(data) as pair:
        assert is_usable(pair)


def test_missing_database_is_made(data: Path) -> None:
    """The database is there after each start, also when somebody dropped it."""
    with start_pair(data) as pair:
        execute(EmbeddedPair(pair.database_url.replace("/ladder?", "/postgres?"), ""), "DROP DATABASE ladder")

    with start_pair(data) as pair:
        assert execute(pair, "SELECT current_database()") == [("ladder",)]


def test_second_start_is_refused(data: Path) -> None:
    """A data directory in use is not touched; the refusal names the directory and the process that uses it."""
    with start_pair(data) as pair:
        with pytest.raises(EmbeddedError, match=f"{re.escape(str(data))} is in use .* process {os.getpid()}:"):
            start_pair(data).__enter__()

        assert is_usable(pair)


def test_one_of_many_racing_starts_wins(data: Path) -> None:
    """Of several processes that start a pair over one directory at once, one gets it and the others are told so."""
    with contextlib.ExitStack() as stack:
        racers = [stack.enter_context(owner_process(data)) for _ in range(4)]
        answers = [told(racer) for racer in racers]

        assert sum(isinstance(answer, EmbeddedPair) for answer in answers) == 1
        assert all("is in use" in answer for answer in answers if isinstance(answer, str))
        for racer in racers:
            racer.communicate()


def test_running_pair_is_found_while_it_runs(data: Path) -> None:
    """A pair is found from the moment it is usable until it is stopped, and not before or after."""
    assert running_pair(data) is None

    with start_pair(data) as pair:
        assert running_pair(data) == pair
    assert running_pair(data) is None


def test_pair_of_a_killed_owner_is_not_found(data: Path) -> None:
    """A pair whose owner was killed is not reported as running once its servers are gone."""
    with owner_process(data) as owner:
        pair = told(owner)
        assert running_pair(data) == pair

        owner.kill()
        wait_until(lambda: running_pair(data) is None)
        assert isinstance(pair, EmbeddedPair)
        wait_until(lambda: not any(sockets(pair).iterdir()))
    sockets(pair).rmdir()


def test_open_pair_uses_the_running_one(data: Path) -> None:
    """A tool that opens a running pair gets that one and leaves it running."""
    with start_pair(data) as pair:
        with open_pair(data) as opened:
            assert opened == pair
        assert is_usable(pair)


def test_open_pair_starts_a_stopped_one(data: Path) -> None:
    """A tool that opens a stopped pair starts it and stops it again."""
    with open_pair(data) as pair:
        assert is_usable(pair)
    assert running_pair(data) is None


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


def test_missing_wheels_name_the_platform_and_the_ways_out(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no wheels, one sentence names the platform and every variable that helps."""
    monkeypatch.delenv("PG_BIN", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr("platform.machine", lambda: "riscv64")

    with pytest.raises(EmbeddedError, match=r"-riscv64 .*DATABASE_URL and REDIS_URL.*PG_BIN and REDIS_BIN.*\.$"):
        start_pair(data).__enter__()
    assert not data.exists()


def test_windows_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, which has neither the signals nor the locks, the refusal says what to do instead."""
    monkeypatch.setattr("platform.system", lambda: "Windows")

    with pytest.raises(EmbeddedError, match="Windows: use WSL, or set DATABASE_URL and REDIS_URL"):
        start_pair(data).__enter__()


@pytest.mark.parametrize("variable", ["PG_BIN", "REDIS_BIN"])
def test_wrong_program_is_named(data: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A variable that names no program is named in the refusal, with its value."""
    monkeypatch.setenv(variable, "/nowhere")

    with pytest.raises(EmbeddedError, match=f"^{variable} is /nowhere, "):
        start_pair(data).__enter__()


def test_server_that_does_not_start_says_why(data: Path) -> None:
    """The refusal repeats what the server said last and names its log; the other server is stopped."""
    with start_pair(data):
        pass
    for part in (data / "valkey" / "appendonlydir").glob("*.manifest"):
        part.write_text("nonsense\n")

    with pytest.raises(
        EmbeddedError, match=r"^The embedded Valkey did not start: FATAL AOF MANIFEST .*valkey\.log\)\.$"
    ):
        start_pair(data).__enter__()
    with pytest.raises(FileNotFoundError):
        postmaster(data)


def test_cluster_of_another_major_version_is_explained(data: Path) -> None:
    """A cluster that another major version of PostgreSQL made is refused with both versions."""
    with start_pair(data):
        pass
    (data / "postgres" / "PG_VERSION").write_text("13\n")

    with pytest.raises(EmbeddedError, match="was made by PostgreSQL 13 and cannot be used by PostgreSQL"):
        start_pair(data).__enter__()


@pytest.mark.skipif(not AS_ROOT, reason="only root has to become somebody else")
def test_root_runs_as_nobody_where_nobody_can_reach(open_directory: Path) -> None:
    """For root the servers run as nobody; no user is made and no directory above the data changes its mode."""
    nobody = pwd.getpwnam("nobody").pw_uid
    programs = Programs.find()
    try:
        for program in (programs.postgres, programs.valkey):
            subprocess.run([program, "--version"], user=nobody, stdout=subprocess.DEVNULL, check=True)
    except PermissionError:
        pytest.skip("the account nobody cannot reach the servers' programs")
    data = open_directory / "data"
    with start_pair(data) as pair:
        assert is_usable(pair)
        assert (data / "postgres").stat().st_uid == nobody
    assert open_directory.stat().st_mode & 0o777 == 0o711


@pytest.mark.skipif(not AS_ROOT, reason="only root has to become somebody else")
def test_root_works_below_a_private_directory(open_directory: Path) -> None:
    """For root the servers reach a data directory below one that only root can pass, and its mode stays."""
    open_directory.chmod(0o700)
    data = open_directory / "data"
    data.mkdir()
    account = choose_account(data, Programs.find())
    assert account
    assert account.namespace

    with start_pair(data) as pair:
        assert is_usable(pair)
    assert (data / "postgres").stat().st_uid == 0
    assert open_directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not AS_ROOT, reason="without root the whole suite runs as a normal user")
def test_normal_user_can_start_a_pair(open_directory: Path) -> None:
    """An account without any privilege starts a pair of its own, which root then finds and can start as well."""
    nobody = pwd.getpwnam("nobody").pw_uid
    try:
        subprocess.run([sys.executable, "-c", ""], user=nobody, env={}, stderr=subprocess.DEVNULL, check=True)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("the account nobody cannot run this interpreter")
    os.chown(open_directory, nobody, nobody)
    data = open_directory / "data"
    with owner_process(data, user=nobody) as owner:
        pair = told(owner)
        assert isinstance(pair, EmbeddedPair)
        assert is_usable(pair)
        assert running_pair(data) == pair
        owner.communicate()

    with start_pair(data) as pair:
        assert is_usable(pair)
    assert {path.stat().st_uid for path in data.iterdir()} == {nobody}


def test_program_that_cannot_run_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    """A program that is not there ends as 126 with a line that names it, rather than with a traceback."""
    process = parent_death.spawn(["/nowhere/program"], death_signal=signal.SIGKILL)

    assert process.wait() == 126
    assert capfd.readouterr().err == "/nowhere/program cannot be run: No such file or directory\n"
