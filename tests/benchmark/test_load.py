"""The load generators send what they are given, count every answer, and know an error from a success."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.arguments.benchmark import OPERATIONS
from service.benchmark import load, servers
from service.benchmark.kinds import KINDS
from service.benchmark.load import Generator, GeneratorFailed
from service.benchmark.results import Sample
from service.benchmark.servers import Server


@pytest.fixture(params=["built-in", "wrk"])
def generator(request: pytest.FixtureRequest) -> Generator:
    if request.param == "wrk" and not shutil.which("wrk"):
        pytest.skip("wrk is not installed here")
    return load.find(request.param)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with servers.ceiling({"rank": b'{"rank":1}'}, tmp_path, workers=1) as running:
        yield running


def _sample(generator: Generator, server: Server, folder: Path, *lines: str) -> Sample:
    requests = load.write_requests(folder / "requests.txt", lines)
    return generator.run(server.url, requests, connections=3, seconds=1, skip=len(lines) + 1)


def test_answers_are_counted_and_timed(generator: Generator, server: Server, tmp_path: Path) -> None:
    """Both kinds of the bare handler answer, and the percentiles are in order."""
    sample = _sample(generator, server, tmp_path, "GET /rank", "GET /asgi/rank")

    assert sample.requests > 50
    assert sample.failed == 0
    assert 0.5 < sample.seconds < 3
    assert 0 < sample.p50_ms <= sample.p95_ms <= sample.p99_ms <= sample.max_ms


def test_errors_are_counted(generator: Generator, server: Server, tmp_path: Path) -> None:
    """Every other request is for what is not there."""
    sample = _sample(generator, server, tmp_path, "GET /rank", "GET /nothing")

    assert abs(sample.failed - sample.requests / 2) < 5


def test_a_body_is_sent_as_json(generator: Generator, server: Server, tmp_path: Path) -> None:
    """A handler for GET refuses a POST: had the body been taken for a request, answers would be more than requests."""
    sample = _sample(generator, server, tmp_path, 'POST /rank\t{"user_ids":["a"]}')

    assert sample.failed == sample.requests > 0


def test_an_absent_wrk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for by name it must be there; else ours takes its place."""
    monkeypatch.setenv("PATH", "")

    assert load.find("auto").name == "built in"
    with pytest.raises(GeneratorFailed, match="no program wrk here"):
        load.find("wrk")


def test_help_names_every_operation() -> None:
    """Each kind of request, and the one that ApacheBench makes."""
    assert (*KINDS, "page-100-ab") == OPERATIONS
