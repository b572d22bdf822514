"""Whom the embedded servers run as: root has to become somebody else, everybody else stays who they are."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from service.embedded import EmbeddedPair, running_pair, start_pair
from service.embedded.programs import Programs, choose_account
from tests.embedded.processes import is_usable, owner_process, told

AS_ROOT = os.geteuid() == 0

pytestmark = pytest.mark.usefixtures("embedded")


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
