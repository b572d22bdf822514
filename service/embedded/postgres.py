"""The embedded PostgreSQL: its cluster, its settings, and what a killed one leaves behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from service.embedded.programs import EmbeddedError, Programs
from service.embedded.server import SOCKETS_PREFIX, Place, Server, complaint, environment, started
from service.parent_death import spawn

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = 5432
SOCKET = f".s.PGSQL.{PORT}"

_FIRST_WITH_BUILTIN_LOCALES = 17
_SPECIAL_IN_A_SHELL = frozenset('$"`\\')
"""What does not stand for itself between double quotes."""
_LONGEST_PATH = 900
"""PostgreSQL's own limit is 1,024, for every file below."""


@contextlib.contextmanager
def running(programs: Programs, place: Place) -> Iterator[Server]:
    """
    Start PostgreSQL, after making its cluster if there is none, and stop it at the end.

    Raises EmbeddedError when the cluster cannot be made, or is of another major version.
    """
    cluster = place.data / "postgres"
    version = _major_version(programs.initdb)
    if not cluster.exists():
        _make_cluster(programs, place, cluster, version)
    made_by = (cluster / "PG_VERSION").read_text().strip()
    if made_by != str(version):
        sentence = (
            f"The cluster in {cluster} was made by PostgreSQL {made_by} and cannot be used by PostgreSQL {version}."
        )
        raise EmbeddedError(sentence)
    _forget_dead_postmaster(cluster)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(place.sockets),
        "unix_socket_permissions": "0700",
        "port": str(PORT),
        "max_connections": "100",
        "shared_buffers": "128MB",
        "fsync": "on",
        "log_checkpoints": "off",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command = [str(programs.postgres), "-D", str(cluster), *options]

    def is_ready() -> bool:
        match _postmaster_file(cluster):
            case [_pid, _data, _since, _port, sockets, _address, _shared_memory, status]:
                return (sockets, status.strip()) == (str(place.sockets), "ready")
        return False

    with started("PostgreSQL", command, place, signal.SIGINT, is_ready) as server:
        yield server


def _make_cluster(programs: Programs, place: Place, cluster: Path, version: int) -> None:
    _check_paths(programs.initdb, cluster)
    # Under another name until it is complete: an initdb that was killed half-way must not look like a cluster.
    draft = cluster.with_name("postgres.new")
    shutil.rmtree(draft, ignore_errors=True)
    place.make_own_directory(draft.name)
    command = [str(programs.initdb), "-D", str(draft), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
    if version >= _FIRST_WITH_BUILTIN_LOCALES:
        # The same order and case folding on every system, whatever locales that has.
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    process = spawn(
        command,
        death_signal=signal.SIGKILL,
        account=place.account,
        env=environment(),
        cwd="/",
        output=subprocess.PIPE,
        keep_open=[place.servers_lock],
    )
    output, _ = process.communicate()
    if process.returncode:
        sentence = f"The embedded PostgreSQL cannot make its cluster: {complaint(output)}."
        raise EmbeddedError(sentence)
    draft.rename(cluster)


def _check_paths(initdb: Path, cluster: Path) -> None:
    """Refuse what initdb would only end of, without a word that helps."""
    way_out = "move that, or set DATABASE_URL and REDIS_URL to use servers of your own"
    if found := _SPECIAL_IN_A_SHELL & set(str(initdb.resolve())):
        sentence = (
            f"The embedded PostgreSQL cannot make its cluster with {initdb}, because initdb hands that path to a shell,"
            f" to which this means something else: {' '.join(sorted(found))}; {way_out}."
        )
        raise EmbeddedError(sentence)
    for path in (initdb, cluster):
        if len(os.fsencode(path)) > _LONGEST_PATH:
            sentence = (
                f"The embedded PostgreSQL takes no path longer than {_LONGEST_PATH} bytes, as {path} is; {way_out}."
            )
            raise EmbeddedError(sentence)


def _major_version(initdb: Path) -> int:
    command = [str(initdb), "--version"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our program
    except (OSError, subprocess.CalledProcessError) as error:
        sentence = f"The program {initdb} cannot be run here ({error})."
        raise EmbeddedError(sentence) from error
    found = re.search(r"\) (\d+)", shown)
    return int(found[1]) if found else 0


def _forget_dead_postmaster(cluster: Path) -> None:
    # A killed postmaster leaves its pid file, and PostgreSQL refuses to start when that pid by now belongs to another
    # process of the same account: common after the restart of a container. Whoever holds the servers' lock knows that
    # nothing of ours lives. A postmaster somebody else started names other sockets and is left to PostgreSQL to judge.
    match _postmaster_file(cluster):
        case [_pid, _data, _since, _port, sockets, *_] if Path(sockets).name.startswith(SOCKETS_PREFIX):
            (cluster / "postmaster.pid").unlink()


def _postmaster_file(cluster: Path) -> list[str]:
    try:
        return (cluster / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []
