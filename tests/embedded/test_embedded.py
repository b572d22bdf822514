"""The embedded pair against real servers: what lasts, what ends, and who finds it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import redis

from service import parent_death
from service.embedded import EmbeddedPair, open_pair, running_pair, start_pair
from tests.embedded.processes import (
    execute,
    is_alive,
    is_usable,
    owner_process,
    postmaster,
    server_pids,
    sockets,
    told,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("embedded")


def test_data_lasts_over_restarts(data: Path) -> None:
    """What was written to either server before a stop is there after the next start."""
    with start_pair(data) as pair, redis.Redis.from_url(pair.redis_url) as client:
        execute(pair, "CREATE TABLE kept AS SELECT 42 AS answer")
        client.zadd("kept", {"alice": 1500})

    with start_pair(data) as pair, redis.Redis.from_url(pair.redis_url) as client:
        assert execute(pair, "SELECT answer FROM kept") == [(42,)]
        assert client.zscore("kept", "alice") == 1500


def test_servers_are_set_up_for_a_ledger_and_a_mirror(fresh: Path) -> None:
    """Commits are durable, text sorts the same everywhere, Valkey keeps all it is given, and nothing is on TCP."""
    settings = "SELECT current_setting('fsync'), current_setting('listen_addresses'), current_setting('TimeZone')"
    with start_pair(fresh) as pair, redis.Redis.from_url(pair.redis_url, decode_responses=True) as client:
        assert execute(pair, settings) == [("on", "", "UTC")]
        assert execute(pair, "SELECT datcollate FROM pg_database WHERE datname = current_database()") == [("C",)]
        assert execute(pair, "SELECT 'a' < 'B'") == [(False,)]
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


def test_half_made_cluster_is_made_anew(fresh: Path) -> None:
    """What an initdb that was killed half-way left behind is not taken for a cluster."""
    (fresh / "postgres.new").mkdir(parents=True)
    (fresh / "postgres.new" / "PG_VERSION").write_text("18\n")

    with start_pair(fresh) as pair:
        assert is_usable(pair)


def test_missing_database_is_made(data: Path) -> None:
    """The database is there after each start, also when somebody dropped it."""
    with start_pair(data) as pair:
        execute(EmbeddedPair(pair.database_url.replace("/ladder?", "/postgres?"), ""), "DROP DATABASE ladder")

    with start_pair(data) as pair:
        assert execute(pair, "SELECT current_database()") == [("ladder",)]


def test_running_pair_is_found_while_it_runs(fresh: Path) -> None:
    """A pair is found from the moment it is usable until it is stopped, and not before or after."""
    assert running_pair(fresh) is None

    with start_pair(fresh) as pair:
        assert running_pair(fresh) == pair
    assert running_pair(fresh) is None


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


def test_program_that_cannot_run_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    """A program that is not there ends as 126 with a line that names it, rather than with a traceback."""
    process = parent_death.spawn(["/nowhere/program"], death_signal=signal.SIGKILL)

    assert process.wait() == 126
    assert capfd.readouterr().err == "/nowhere/program cannot be run: No such file or directory\n"
