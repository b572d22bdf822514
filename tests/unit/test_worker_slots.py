"""The numbers of workers and their files: taken over by successors, added up by anyone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from service import worker_slots
from tests.api.scrapes import Scrape

ROOT = Path(__file__).resolve().parents[2]

WORKER = """
import sys
from service import worker_slots
worker_slots.claim()
from service import metrics
{body}
print(worker_slots._name, flush=True)
sys.stdin.read()
"""
COUNT = "metrics.SHED.inc(5); metrics.IN_FLIGHT.inc()"
TELL = """from service import metrics, worker_slots
print(metrics.exposition([], as_openmetrics=False)[0].decode())"""


class Workers:
    """Processes that count in one directory."""

    def __init__(self, folder: Path) -> None:
        self._environment = {"PYTHONPATH": str(ROOT), worker_slots.VARIABLE: str(folder)}
        self._running: dict[str, subprocess.Popen[str]] = {}

    def start(self, body: str = COUNT) -> str:
        """Start one; its number, when it has counted."""
        script = WORKER.format(body=body)
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=PIPE, stdout=PIPE, text=True, env=self._environment
        )
        assert process.stdout
        number = process.stdout.readline().strip()
        self._running[number] = process
        return number

    def kill(self, number: str) -> None:
        """End one as the kernel does."""
        process = self._running.pop(number)
        process.kill()
        process.communicate()

    def kill_all(self) -> None:
        """End all."""
        for number in list(self._running):
            self.kill(number)

    def tell(self, script: str = TELL) -> Scrape:
        """What a process that is none of them says."""
        done = subprocess.run(
            [sys.executable, "-c", script], stdin=PIPE, stdout=PIPE, check=True, env=self._environment
        )
        return Scrape(done.stdout.decode())


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    """Nobody yet; ended with the test."""
    started = Workers(tmp_path)
    yield started
    started.kill_all()


def test_a_successor_counts_on_under_the_number_of_the_dead(workers: Workers) -> None:
    """Nothing counted is lost; what was under way is. The other one's number and gauges stay."""

    def told() -> tuple[float | None, ...]:
        found = workers.tell()
        return tuple(found.value(name) for name in ("ladder_shed_total", "ladder_http_requests_in_flight"))

    assert ["0", "1"] == [workers.start(), workers.start()]
    workers.kill("0")
    assert (10, 1) == told()

    assert "0" == workers.start()
    assert (15, 2) == told()
    workers.kill_all()
    assert (15, 0) == told()


def test_numbers_stay_right_when_the_file_grows(workers: Workers, tmp_path: Path) -> None:
    """Those that were there before, and those that made it grow past its first 64 KiB."""
    body = """
metrics.SHED.inc()
for _ in range(2):
    for number in range(400):
        metrics.answered(f"/route{number}", "GET", 200, 0.001)
metrics.SHED.inc()
"""
    workers.start(body)
    found = workers.tell()

    assert 2 == found.value("ladder_shed_total")
    assert (tmp_path / "histogram_0.db").stat().st_size > 65536
    for number in range(400):
        route = f"/route{number}"
        assert 2 == found.value("ladder_http_requests_total", method="GET", status="200", route=route)
        assert 2 == found.value("ladder_http_request_duration_seconds_count", route=route)


def test_what_a_fork_brought_along_counts_for_its_own_number(workers: Workers, tmp_path: Path) -> None:
    """Two workers of a supervisor that had imported the metrics already, at the same time."""
    script = f"""
import os
{TELL.splitlines()[0]}
ended, last = os.pipe()
for _ in range(2):
    if not os.fork():
        worker_slots.claim()
        for _ in range(100000):
            metrics.SHED.inc()
        os.write(last, worker_slots._name.encode())
        os.read(0, 1)
        os._exit(0)
while len(os.read(ended, 1)) + len(os.read(ended, 1)) < 2:
    pass
{TELL}
"""
    assert 200000 == workers.tell(script).value("ladder_shed_total")
    assert {"counter_0.db", "counter_1.db", "counter_supervisor.db"} == {
        path.name for path in tmp_path.glob("counter*")
    }


def test_a_worker_that_would_count_for_nobody_does_not_begin(tmp_path: Path) -> None:
    """The metrics were imported before there was a directory."""
    directory = f"os.environ[{worker_slots.VARIABLE!r}] = {str(tmp_path)!r}"
    script = f"import os; from service import metrics, worker_slots; {directory}; worker_slots.claim()"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, env={"PYTHONPATH": str(ROOT)}
    )

    assert b"RuntimeError: service.metrics was imported before" in done.stderr


def test_without_a_directory_a_process_counts_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a script, and in tests."""
    monkeypatch.delenv(worker_slots.VARIABLE, raising=False)
    worker_slots.claim()

    assert {} == worker_slots.living()
    assert worker_slots.place() is None


def test_the_directory_is_there_for_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else may look into it, and it goes with everything in it."""
    monkeypatch.delenv(worker_slots.VARIABLE, raising=False)
    with worker_slots.directory():
        where = worker_slots.place()
        assert where
        assert 0o700 == where.stat().st_mode & 0o777
        (where / "counter_0.db").touch()

    assert not where.exists()
    assert worker_slots.place() is None
