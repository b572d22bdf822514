"""
Starts everything Ladder needs, in order: stores, schema, made-up users, service. `scripts/server` calls it.

The service is `python -m service`, a child that is configured by environment variables only, just as in a container.
This process waits until it is ready, says so, and takes everything down again at SIGINT or SIGTERM.

Exit codes: 0 stopped by a signal; 1 something could not be started or ended unexpectedly; 2 wrong arguments or
variables, or a port in use. A service that ends before it is ready passes on its own.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from service import checkout, standard_streams
from service.arguments import parse
from service.arguments.serve import EMBEDDED_DEMO_USERS
from service.errors import LadderError, Misconfigured, as_sentence, explain
from service.listening import refusal
from service.parent_death import spawn
from service.settings import Settings, SettingsError
from service.stop_request import Stopped, StopRequest

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SERVICE = (sys.executable, "-P", "-m", "service")
TRAFFIC = (sys.executable, "-P", "-m", "service.demo_traffic")

_FAILED = 1
_WRONG = 2
_READY_SECONDS = 60.0
_ANSWER_SECONDS = 2.0
_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.05
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask a service that listens everywhere


class _Refused(Exception):
    """Ladder cannot start or go on; the message is one sentence, or empty when somebody has said it already."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


def main(arguments: Sequence[str] | None = None, *, service: Sequence[str] = SERVICE) -> int:
    """Run Ladder as these arguments say, those of this process by default."""
    return run(parse("serve", sys.argv[1:] if arguments is None else arguments, program="scripts/server"), service)


def run(options: argparse.Namespace, service: Sequence[str] = SERVICE) -> int:
    """Run Ladder until SIGINT or SIGTERM and return the exit code; `service` is the command that serves."""
    stop = StopRequest()
    try:
        _run(options, service, stop)
    except Stopped:
        return 0
    except _Refused as refused:
        if str(refused):
            print(refused, file=sys.stderr)  # noqa: T201 - a program for a terminal
        return refused.code
    return 0


def _run(options: argparse.Namespace, service: Sequence[str], stop: StopRequest) -> None:
    environment = _environment(options)
    embedded = "DATABASE_URL" not in environment
    # Before anything is started: a mistake is told at once.
    settings = _checked({"DATABASE_URL": "postgresql:///ladder", "REDIS_URL": "unix:///none", **environment})
    if sentence := refusal(settings.host, settings.port):
        raise _Refused(sentence, _WRONG)
    with contextlib.ExitStack() as stack:
        if embedded:
            environment |= stack.enter_context(_embedded_stores(options.data or checkout.data_directory()))
            stack.callback(stop.ignore)
        stop.check()
        users = options.demo_users if options.demo_users is not None else EMBEDDED_DEMO_USERS if embedded else 0
        if users:
            _fill(environment["DATABASE_URL"], users)
        stop.check()
        child = stack.enter_context(_serving(service, environment))
        stack.callback(stop.ignore)
        _wait_until_ready(child, settings, stop)
        print(f"Ladder is ready: {_url(settings)}", flush=True)  # noqa: T201 - what the caller waits for
        if options.demo_traffic:
            stack.enter_context(_playing(settings, options.demo_traffic, environment))
        if not stop.wait(child):
            sentence = f"The service ended unexpectedly with exit code {_exit_code(child)}."
            raise _Refused(sentence, _FAILED)


def _environment(options: argparse.Namespace) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if value}
    stores = ("DATABASE_URL", "REDIS_URL")
    missing = [name for name in stores if name not in environment]
    if len(missing) == 1:
        sentence = f"{missing[0]} is not set: set both {' and '.join(stores)}, or neither for stores of Ladder's own."
        raise _Refused(sentence, _WRONG)
    if options.data and not missing:
        sentence = f"--data is for stores of Ladder's own, but {' and '.join(stores)} are set: leave out either."
        raise _Refused(sentence, _WRONG)
    # Nobody is told by a balancer here: Ctrl-C is to end it.
    environment = {"DRAIN_SECONDS": "0", **environment, "HOST": options.host, "PORT": options.port}
    if options.workers is not None:
        environment["WORKERS"] = options.workers
    return environment | checkout.import_path(environment.get("PYTHONPATH"))


def _checked(environment: dict[str, str]) -> Settings:
    try:
        return Settings.from_env(environment)
    except SettingsError as error:
        raise _Refused(str(error), _WRONG) from error


@contextlib.contextmanager
def _embedded_stores(data: Path) -> Iterator[dict[str, str]]:
    from service.embedded import EmbeddedError, start_pair  # noqa: PLC0415 - not needed with stores given

    with contextlib.ExitStack() as stack:
        try:
            pair = stack.enter_context(start_pair(data))
        except EmbeddedError as error:
            raise _Refused(str(error), _FAILED) from error
        yield {"DATABASE_URL": pair.database_url, "REDIS_URL": pair.redis_url}


def _fill(database_url: str, users: int) -> None:
    from service.demo import fill  # noqa: PLC0415 - these keep wrong arguments quick to refuse
    from service.store.migrate import migrate  # noqa: PLC0415

    try:
        # The service does this itself, but only the users' table can be filled.
        migrate(database_url, waiting=_say_waiting)
        fill(database_url, users)
    except Misconfigured as error:
        raise _Refused(as_sentence(explain(error)), _WRONG) from error
    except LadderError as error:
        raise _Refused(
            as_sentence(f"The database cannot be filled with made-up users: {explain(error)}"), _FAILED
        ) from error


def _say_waiting(reason: str) -> None:
    print(as_sentence(f"Waiting: {reason}"), file=sys.stderr, flush=True)  # noqa: T201


@contextlib.contextmanager
def _serving(service: Sequence[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    child = spawn(service, death_signal=signal.SIGTERM, env=environment)
    try:
        yield child
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_SECONDS)
        # Its workers are in its process group, and are gone already unless something went wrong.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@contextlib.contextmanager
def _playing(settings: Settings, matches: int, environment: dict[str, str]) -> Iterator[None]:
    # It is given nothing by which it could get past the API. Whatever becomes of it is nothing to the service.
    environment = {name: value for name, value in environment.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    host = _WILDCARDS.get(settings.host, settings.host)
    child = spawn((*TRAFFIC, host, str(settings.port), str(matches)), death_signal=signal.SIGKILL, env=environment)
    try:
        yield
    finally:
        child.kill()
        child.wait()


def _wait_until_ready(child: subprocess.Popen[bytes], settings: Settings, stop: StopRequest) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not _is_ready(settings):
        stop.check()
        if child.poll() is not None:
            raise _Refused("", _exit_code(child) or _FAILED)
        if time.monotonic() > deadline:
            sentence = f"The service is not ready after {_READY_SECONDS:.0f} s, because no store can be read."
            raise _Refused(sentence, _FAILED)
        time.sleep(_POLL_SECONDS)


def _is_ready(settings: Settings) -> bool:
    host = _WILDCARDS.get(settings.host, settings.host)
    connection = http.client.HTTPConnection(host, settings.port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _url(settings: Settings) -> str:
    # No browser opens 0.0.0.0.
    host = _WILDCARDS.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{settings.port}"


def _exit_code(child: subprocess.Popen[bytes]) -> int:
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(standard_streams.run(main, program="scripts/server"))
