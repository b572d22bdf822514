"""The launcher, run as the program it is, with a small stand-in for the service behind it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from service.embedded import running_pair, start_pair
from tests.embedded.processes import ROOT, is_alive, server_pids, sockets, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

STORES = {"DATABASE_URL": "postgresql://nobody@nowhere/ladder", "REDIS_URL": "redis://nowhere"}

# Answers as the service does, tells its environment, and can be made to end, to hang or to take its time.
SERVICE = """
import http.server, json, os, signal, socket, sys, time
from pathlib import Path

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/end":
            os._exit(3)
        ready = self.path != "/health/ready" or "unready" not in sys.argv
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(json.dumps({**os.environ, "PID": os.getpid()}).encode())

    def log_message(self, *_):
        pass

class Server(http.server.HTTPServer):
    address_family = socket.AF_INET6 if ":" in os.environ["HOST"] else socket.AF_INET

def finish(*_):
    if "slow" in sys.argv:
        Path("stopping").touch()
        while not Path("stop").exists():
            time.sleep(0.01)
    os._exit(0)

signal.signal(signal.SIGTERM, signal.SIG_IGN if "stuck" in sys.argv else finish)
if "wrong" in sys.argv:
    sys.exit("PORT is wrong.")
Path("pid").write_text(str(os.getpid()))
Server((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""

# The launcher's own entry, with the stand-ins: the service's command, and made-up users that are only counted.
LAUNCHER = """
import sys, types
from pathlib import Path
from service import launch

demo = types.ModuleType("service.demo")
demo.fill = lambda url, count: Path("filled").write_text(f"{count} {url}")
sys.modules["service.demo"] = demo
launch._GRACE_SECONDS = 2.0
behaviour, *arguments = sys.argv[1:]
sys.exit(launch.main(arguments, service=[sys.executable, "-c", Path("service.py").read_text(), behaviour]))
"""


class Launched:
    """A launcher that runs in a directory of its own, and what it says."""

    def __init__(self, process: subprocess.Popen[str], directory: Path, port: int) -> None:
        self.process = process
        self.directory = directory
        self.port = port

    def line(self) -> str:
        """The next line on stdout; empty when the launcher has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self, *signals: signal.Signals) -> tuple[int, str, str]:
        """Send signals, wait for the end and return the exit code and the rest of both outputs."""
        for number in signals:
            self.process.send_signal(number)
        output, errors = self.process.communicate()
        return self.process.returncode, output, errors

    def get(self, path: str, host: str = "127.0.0.1") -> dict[str, object]:
        """Ask the stand-in."""
        connection = http.client.HTTPConnection(host, self.port)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return cast("dict[str, object]", json.loads(connection.getresponse().read()))

    def service_pid(self) -> int:
        """The process id of the stand-in, once it runs."""
        file = self.directory / "pid"
        wait_until(lambda: file.exists() and file.read_text())
        return int(file.read_text())


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def launched(
    directory: Path, port: int | None, *arguments: str, behaviour: str = "plain", stores: dict[str, str] = STORES
) -> Iterator[Launched]:
    """
    Run the launcher in a directory, with given stores unless told otherwise; nothing of it outlives the test.

    Without a `port` its variables say which.
    """
    (directory / "service.py").write_text(SERVICE)
    plain = {name: value for name, value in os.environ.items() if name not in {*STORES, "HOST", "PORT", "WORKERS"}}
    with subprocess.Popen(
        [sys.executable, "-P", "-c", LAUNCHER, behaviour, *([] if port is None else ["--port", str(port)]), *arguments],
        cwd=directory,
        env={**plain, **stores, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Launched(process, directory, port or int(stores["PORT"]))
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_starts_everything_and_stops_it(tmp_path: Path, port: int, number: signal.Signals) -> None:
    """Stores, schema, made-up users and service come up, one line says so, and a signal ends all with code 0."""
    with launched(tmp_path, port, "--data", "data", stores={}) as ladder:
        assert ladder.line() == f"Ladder is ready: http://127.0.0.1:{port}\n"

        pair = running_pair(tmp_path / "data")
        assert pair is not None
        given = ladder.get("/environment")
        assert (given["DATABASE_URL"], given["REDIS_URL"]) == (pair.database_url, pair.redis_url)
        assert (tmp_path / "filled").read_text() == f"10000 {pair.database_url}"
        pids = [*server_pids(pair, tmp_path / "data"), ladder.service_pid()]

        assert ladder.end(number) == (0, "", "")
        assert not any(map(is_alive, pids))


@pytest.mark.usefixtures("embedded")
def test_nothing_outlives_a_killed_launcher(tmp_path: Path, port: int) -> None:
    """`kill -9` of the launcher ends the service and both stores."""
    with launched(tmp_path, port, "--data", "data", stores={}) as ladder:
        ladder.line()
        pair = running_pair(tmp_path / "data")
        assert pair is not None
        pids = [*server_pids(pair, tmp_path / "data"), ladder.service_pid()]
        ladder.end(signal.SIGKILL)

        wait_until(lambda: not any(map(is_alive, pids)))
        sockets(pair).rmdir()


@pytest.mark.usefixtures("embedded")
def test_data_in_use_is_refused(tmp_path: Path, port: int) -> None:
    """A launcher over the data of another one's servers ends with a sentence and leaves those alone."""
    data = tmp_path / "data"
    with start_pair(data) as pair, launched(tmp_path, port, "--data", str(data), stores={}) as ladder:
        code, output, errors = ladder.end()

        assert (code, output) == (1, "")
        assert re.fullmatch(r"The data directory \S+ is in use by .*\.\n", errors)
        assert running_pair(data) == pair


def test_service_is_configured_by_its_environment(tmp_path: Path, port: int) -> None:
    """The service gets host, port, workers and the given stores, and no made-up users unless they are asked for."""
    with launched(tmp_path, port, "--workers", "3") as ladder:
        ladder.line()

        assert {"HOST": "127.0.0.1", "PORT": str(port), "WORKERS": "3", **STORES}.items() <= ladder.get("/").items()
        assert not (tmp_path / "filled").exists()
        assert ladder.end(signal.SIGTERM) == (0, "", "")


def test_variables_are_the_defaults_of_the_options(tmp_path: Path, port: int) -> None:
    """HOST, PORT and WORKERS count where no option is given; an option wins."""
    variables = {**STORES, "HOST": "::1", "PORT": str(port), "WORKERS": "5"}
    with launched(tmp_path, None, stores=variables) as ladder:
        assert ladder.line() == f"Ladder is ready: http://[::1]:{port}\n"
    variables |= {"PORT": "1"}
    with launched(tmp_path, port, "--host", "127.0.0.1", "--workers", "2", stores=variables) as ladder:
        assert ladder.line() == f"Ladder is ready: http://127.0.0.1:{port}\n"
        assert "2" == ladder.get("/")["WORKERS"]


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("localhost", "localhost")])
def test_the_ready_line_can_be_opened(tmp_path: Path, port: int, host: str, shown: str) -> None:
    """No browser opens the address that stands for all."""
    stores = {**STORES, "ALLOW_ANONYMOUS_WRITES": "true"}
    with launched(tmp_path, port, "--host", host, stores=stores) as ladder:
        assert ladder.line() == f"Ladder is ready: http://{shown}:{port}\n"


def test_a_host_that_cannot_be_listened_on_is_refused(tmp_path: Path, port: int) -> None:
    """Before a database is made."""
    stores = {"ALLOW_ANONYMOUS_WRITES": "true"}
    with launched(tmp_path, port, "--data", "data", "--host", "no-such-host.invalid", stores=stores) as ladder:
        code, output, errors = ladder.end()

        assert (code, output) == (2, "")
        assert re.fullmatch(rf"Port {port} on no-such-host.invalid cannot be listened on: .*\.\n", errors)
        assert not (tmp_path / "data").exists()


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_ipv6_address_is_shown_in_brackets(tmp_path: Path, port: int) -> None:
    """The ready line is a URL that can be opened, also for an IPv6 address."""
    with launched(tmp_path, port, "--host", "::1") as ladder:
        assert ladder.line() == f"Ladder is ready: http://[::1]:{port}\n"
        assert ladder.end(signal.SIGINT)[0] == 0


def test_port_in_use_is_refused(tmp_path: Path) -> None:
    """With its port taken the launcher ends with code 2 and one sentence, before it has started anything."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with launched(tmp_path, taken, "--data", "data", stores={}) as ladder:
            sentence = f"Port {taken} on 127.0.0.1 is in use: choose another one.\n"

            assert ladder.end() == (2, "", sentence)
            assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--port", "0"], "PORT"),
        (["--port", "65536"], "PORT"),
        (["--port", "http"], "PORT"),
        (["--workers", "0"], "WORKERS"),
        (["--demo-users", "-1"], "--demo-users"),
        (["--demo-users", "1e4"], "--demo-users"),
        (["--demo-traffic", "0"], "--demo-traffic"),
        (["--host", "no such host"], "HOST"),
        (["--colour"], "--colour"),
        (["--data", ""], "--data"),
        (["--data", "data"], "DATABASE_URL and REDIS_URL are set"),
    ],
)
def test_wrong_argument_is_named(tmp_path: Path, port: int, arguments: list[str], named: str) -> None:
    """A wrong argument ends the launcher with code 2 and one line that names it."""
    with launched(tmp_path, port, *arguments) as ladder:
        code, output, errors = ladder.end()

        assert (code, output) == (2, "")
        assert re.fullmatch(f".*{named}.*\n", errors)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["service.py"]


@pytest.mark.parametrize("missing", sorted(STORES))
def test_one_store_alone_is_refused(tmp_path: Path, port: int, missing: str) -> None:
    """With only one of the stores given, the launcher names the other rather than mixing in one of its own."""
    stores = {name: url for name, url in STORES.items() if name != missing}
    with launched(tmp_path, port, stores=stores) as ladder:
        code, output, errors = ladder.end()

        assert (code, output) == (2, "")
        assert re.fullmatch(f"{missing} is not set: .*\\.\n", errors)


def test_service_that_ends_early_passes_on_its_code(tmp_path: Path, port: int) -> None:
    """What the service says when it refuses to start stands alone, and its exit code is the launcher's."""
    with launched(tmp_path, port, behaviour="wrong") as ladder:
        assert ladder.end() == (1, "", "PORT is wrong.\n")


def test_service_that_ends_later_is_a_failure(tmp_path: Path, port: int) -> None:
    """A service that ends by itself after it was ready ends the launcher with code 1 and a sentence."""
    with launched(tmp_path, port) as ladder:
        ladder.line()
        with contextlib.suppress(http.client.HTTPException, ConnectionError):
            ladder.get("/end")

        assert ladder.end() == (1, "", "The service ended unexpectedly with exit code 3.\n")


def test_service_that_hangs_is_killed(tmp_path: Path, port: int) -> None:
    """A service that does not end when asked is killed, and the launcher still ends with code 0."""
    with launched(tmp_path, port, behaviour="stuck") as ladder:
        ladder.line()

        assert ladder.end(signal.SIGTERM) == (0, "", "")
        assert not is_alive(ladder.service_pid())


def test_signal_before_ready_stops_too(tmp_path: Path, port: int) -> None:
    """Whoever loses patience before the service is ready gets everything stopped, with code 0."""
    with launched(tmp_path, port, behaviour="unready") as ladder:
        pid = ladder.service_pid()

        assert ladder.end(signal.SIGINT) == (0, "", "")
        assert not is_alive(pid)


def test_impatient_signals_disturb_nothing(tmp_path: Path, port: int) -> None:
    """More Ctrl-C while everything is taken down neither cut it short nor change the exit code."""
    with launched(tmp_path, port, behaviour="slow") as ladder:
        ladder.line()
        ladder.process.send_signal(signal.SIGINT)
        wait_until((tmp_path / "stopping").exists)
        ladder.process.send_signal(signal.SIGINT)
        ladder.process.send_signal(signal.SIGTERM)
        (tmp_path / "stop").touch()

        assert ladder.end() == (0, "", "")
        assert not is_alive(ladder.service_pid())
