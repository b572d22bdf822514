"""What is deployed: as far as can be told without a container engine, it is well-formed, says what it must, and runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.parent_death import spawn
from service.settings import Settings
from tests.api.serving import ROOT, free_port, wait_until

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
VARIABLES = {field.upper() for field in Settings.__struct_fields__}
STAGES = re.split(r"(?m)^(?=FROM )", re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text()))[1:]


def tool(name: str) -> str:
    """A program of the virtual environment, or of the machine."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str) -> None:
    """Run a check; what it says is the failure."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert 0 == done.returncode, done.stdout + done.stderr


# Compose


def test_the_compose_file_is_one() -> None:
    """By the specification's own schema, which the checker brings along."""
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")


def test_nothing_is_published_but_the_service() -> None:
    """And that, unless told otherwise, on loopback only."""
    assert {"service"} == {name for name, service in SERVICES.items() if "ports" in service}
    assert ["${PUBLISH:-127.0.0.1:8080}:8080"] == SERVICES["service"]["ports"]


def test_no_secret_has_a_default() -> None:
    """Passwords come from the environment, and their lack stops compose."""
    text = (ROOT / "docker-compose.yml").read_text()
    for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "API_KEYS"):
        uses = re.findall(rf"(?<!\$)\${{{name}(.*?)}}", text)
        assert uses
        assert all(use.startswith(":?") for use in uses)
    assert not re.search(r"(?i)password[\"']?\s*[:=]\s*[\"']?[a-z0-9]+[\"']?\s*$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["migrate", "service", "reconcile"])
def test_what_is_ours_may_do_little(name: str) -> None:
    """It writes nothing but temporary files, and has no privileges to gain."""
    service = SERVICES[name]

    assert service["read_only"]
    assert ["/tmp"] == service["tmpfs"]
    assert ["ALL"] == service["cap_drop"]
    assert ["no-new-privileges:true"] == service["security_opt"]


def test_every_variable_of_the_service_is_one_of_its_settings() -> None:
    """A misspelt one would be ignored in silence."""
    assert set(SERVICES["service"]["environment"]) <= VARIABLES
    assert {"DATABASE_URL", "REDIS_URL"} == set(SERVICES["migrate"]["environment"])


def test_redis_never_evicts_the_board() -> None:
    """And keeps it over a restart."""
    command = " ".join(SERVICES["redis"]["command"])

    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command


def test_the_service_waits_for_the_schema() -> None:
    """Migrations are a one-shot of their own; the services apply none."""
    assert {"condition": "service_completed_successfully"} == SERVICES["service"]["depends_on"]["migrate"]
    assert "false" == SERVICES["service"]["environment"]["MIGRATE_ON_START"]


def test_every_file_that_is_mounted_is_there() -> None:
    """A missing one would become an empty directory."""
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]


def test_every_script_that_is_run_is_there() -> None:
    """With the options that are used."""
    said = (ROOT / "docker-compose.yml").read_text() + (ROOT / "deploy/cron/ladder").read_text()
    for script in set(re.findall(r"scripts/\w+\.py", said)):
        told = subprocess.run([str(ROOT / script), "--help"], capture_output=True, text=True, check=True).stdout
        used = {option for line in said.splitlines() if script in line for option in re.findall(r"--[a-z-]+", line)}
        assert used <= set(re.findall(r"--[a-z-]+", told))


# Without containers


def test_the_systemd_unit_is_one() -> None:
    """By systemd itself; that its user and files are not on this machine is no fault of the unit."""
    done = subprocess.run(
        [tool("systemd-analyze"), "verify", str(ROOT / "deploy/systemd/ladder.service")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "ladder.service" in line and "is not executable" not in line]

    assert [] == said


def test_the_cron_lines_are_five_times_a_user_and_a_command() -> None:
    """As a file in cron.d has them."""
    lines = [line for line in (ROOT / "deploy/cron/ladder").read_text().splitlines() if re.match(r"[*0-9]", line)]

    assert 2 == len(lines)
    # At the same minute one would find the other at work, and do nothing.
    assert int(lines[1].split()[0]) % 15
    assert all(line in (ROOT / "docs/operations.md").read_text() for line in lines)
    assert all(re.fullmatch(r"(?:[0-9*/]+\s+){5}ladder\s+set -a; .+", line) for line in lines)


# The image


def test_the_dockerfile_has_no_bad_habits() -> None:
    """By a linter."""
    run(tool("hadolint"), "Dockerfile")


def test_the_image_is_not_root_and_knows_its_health() -> None:
    """What is left of the last stage."""
    last = STAGES[-1]

    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert last.index("COPY") < last.index("USER")


@pytest.mark.timeout(300)
def test_the_steps_of_the_dockerfile_make_a_service_that_runs(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    """The same commands over the same paths, below a directory: then its command serves, and is healthy."""
    port = free_port()
    environment = {
        "PATH": f"{tmp_path}/opt/ladder/python/bin:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WORKERS": "1",
        "TMPDIR": str(tmp_path),
        **{name: os.environ[name] for name in os.environ if name.startswith("PIP_") or name.endswith("_proxy")},
    }

    def below(text: str) -> str:
        return re.sub(r"(?<![\w.])/(opt|build)\b", rf"{tmp_path}/\1", text).replace(
            "python -m venv", f"{sys.executable} -m venv"
        )

    for line in "".join(STAGES).splitlines():
        word, _, rest = line.partition(" ")
        if word == "COPY" and not rest.startswith("--from"):
            source, target = rest.split()
            into = Path(below(target))
            into.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, into)
        elif word == "RUN" and not rest.startswith("useradd"):
            done = subprocess.run(
                ["/bin/sh", "-ec", below(rest)], env=environment, capture_output=True, text=True, check=False
            )
            assert 0 == done.returncode, done.stderr
    (command,) = re.findall(r"^CMD (\[.*\])$", STAGES[-1], re.MULTILINE)
    (health,) = re.findall(r"^HEALTHCHECK .*?CMD (\[.*\])$", STAGES[-1], re.MULTILINE)
    python = f"{tmp_path}/opt/ladder/python/bin/python"
    with (tmp_path / "log").open("wb") as log:
        process = spawn(
            [python, *yaml.safe_load(command)[1:]],
            death_signal=signal.SIGKILL, env=environment, cwd=tmp_path / "opt/ladder", output=log,
        )  # fmt: skip
    try:
        checked = [python, *yaml.safe_load(health)[1:]]
        wait_until(lambda: subprocess.run(checked, env=environment, capture_output=True, check=False).returncode == 0)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/leaderboard") as answer:
            assert 200 == answer.status
        process.terminate()
        assert 0 == process.wait(20)
    finally:
        process.kill()
        process.wait()
    assert shlex.split("python -m service") == yaml.safe_load(command)
