"""
Starts programs that end when the process that started them ends, even after `kill -9`.

A killed process runs no `finally` and no `atexit` hook, so its children have to notice. This file is two things:
`spawn`, which the parent calls, and a small program that `spawn` puts before the one that is wanted. That program
changes the account where asked to, and then

* on Linux asks the kernel for a signal at the parent's death (`PR_SET_PDEATHSIG`) and becomes the wanted program;
* elsewhere stays as a guard, which passes signals on and watches whose child it is.

It is a program and not a `preexec_fn` because Python code between fork and exec can deadlock when the parent has
threads. It is run by its path and imports nothing of ours, so that it costs milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import FrameType

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_POLL_SECONDS = 0.25
_CANNOT_EXECUTE = 126

kernel_tells = sys.platform == "linux"
"""Whether the kernel can signal a child when its parent ends; if not, a guard process does."""


class Account(NamedTuple):
    """
    Whom a program runs as when its parent is root.

    With `namespace` the program sees itself as this account inside a user namespace of its own, while on disk it
    stays root: it reaches what only root can reach, and files it makes belong to root.
    """

    uid: int
    gid: int
    namespace: bool = False

    @property
    def owner(self) -> int:
        """The user id that files made by this account have on disk."""
        return os.geteuid() if self.namespace else self.uid


def spawn(
    command: Sequence[str],
    *,
    death_signal: signal.Signals,
    account: Account | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    output: int | IO[bytes] | None = None,
    keep_open: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """
    Start a program that gets `death_signal` as soon as this process ends, for whatever reason.

    Call it from the main thread: what the Linux kernel watches is the calling *thread*. The program leads a session
    of its own, so a Ctrl-C in the terminal does not reach it. `output` takes both of its output streams; `keep_open`
    lists descriptors it inherits. A program that cannot be run shows as exit status 126 with a line on its stderr.
    """
    watch = "kernel" if kernel_tells else "guard"
    who = "" if account is None else f"{account.uid} {account.gid} {account.namespace:d}"
    return subprocess.Popen(  # noqa: S603 - the caller's command, with no shell between
        [sys.executable, "-I", "-S", __file__, watch, str(os.getpid()), str(int(death_signal)), who, *command],
        env=env,
        cwd=cwd,
        stdin=stdin,
        stdout=output,
        stderr=output,
        pass_fds=keep_open,
        start_new_session=True,
    )


def _run(arguments: list[str]) -> int:
    watch, parent, death_signal, who, *command = arguments
    try:
        if who:
            uid, gid, namespace = map(int, who.split())
            _become(Account(uid, gid, bool(namespace)))
        if watch == "kernel":
            _ask_kernel(int(parent), int(death_signal))
            os.execv(command[0], command)  # noqa: S606 - see spawn
        return _guard(int(parent), int(death_signal), command)
    except OSError as error:
        print(f"{command[0]} cannot be run: {error.strerror}", file=sys.stderr)  # noqa: T201 - the log has its stderr
        return _CANNOT_EXECUTE


def _become(account: Account) -> None:
    if account.namespace:
        outside = f"{os.getuid()} 1", f"{os.getgid()} 1"
        _system_call("unshare", _CLONE_NEWUSER)
        # The kernel refuses a group map from a process that could still call setgroups.
        for file, line in (
            ("setgroups", "deny"),
            ("uid_map", f"{account.uid} {outside[0]}"),
            ("gid_map", f"{account.gid} {outside[1]}"),
        ):
            with open(f"/proc/self/{file}", "w", encoding="ascii") as stream:  # noqa: PTH123 - pathlib loads slowly
                stream.write(line)
    else:
        os.setgroups([])
        os.setgid(account.gid)
        os.setuid(account.uid)


def _ask_kernel(parent: int, death_signal: int) -> None:
    # After the change of account, which would clear the request. And only then look at the parent: one that ended
    # before the request was made sends nothing any more.
    _system_call("prctl", _PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


def _system_call(name: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _guard(parent: int, death_signal: int, command: list[str]) -> int:
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    # Handlers first: a signal between the start of the child and its handler would end the guard and free the child.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, pass_on)
    child = subprocess.Popen(command, close_fds=False)  # noqa: S603 - see spawn
    for pending in early:
        child.send_signal(pending)
    orphaned = False
    while True:
        try:
            status = child.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if not orphaned and os.getppid() != parent:
                orphaned = True
                child.send_signal(death_signal)
        else:
            return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1:]))
