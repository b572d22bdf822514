"""Data directories for the tests of the embedded pair."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.embedded import EmbeddedError, start_pair
from service.embedded.programs import Programs


@pytest.fixture(scope="session")
def embedded() -> None:
    """Skip what needs the embedded servers where there are none."""
    try:
        Programs.find()
    except EmbeddedError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a pair that was started and stopped once; to be copied, not used."""
    directory = tmp_path_factory.mktemp("stopped") / "data"
    with start_pair(directory):
        pass
    return directory


@pytest.fixture
def data(stopped: Path, tmp_path: Path) -> Path:
    """A data directory that has been used before, which spares most tests the making of a cluster."""
    return Path(shutil.copytree(stopped, tmp_path / "data"))


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A data directory that does not exist yet."""
    return tmp_path / "data"


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every account can pass through, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="ladder-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)
