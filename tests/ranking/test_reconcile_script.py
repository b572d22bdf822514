"""`scripts/reconcile.py` as cron and an operator run it: its exit codes, its line of JSON, its manners."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from service.app import opened
from service.model import NewUser, UserId
from service.ranking.drift import Outcome
from service.ranking.ladder import Ladder
from service.ranking.tail import Tailer
from service.settings import Settings
from service.store.feed import LOCK, RECONCILE_LOCK
from service.store.mirror import Mirror
from tests.embedded.processes import wait_until
from tests.ranking.equality import assert_mirror_equals_ledger, ready
from tests.ranking.reconciling import BOARD, NOTE, STATE, USERS, Session, bypassing, everything, insert, place

PROGRAM = Path(__file__).parents[2] / "scripts" / "reconcile.py"
FIELDS = (
    "run_id mode dry_run epoch src checked missing stale ahead orphan corrupt ghost miscount repaired raced next_id"
    " lag_ms remaining history_day history_rows history_purged tombstones mirror_tombstones tombstones_removed"
    " mirror_tombstones_removed duration_ms error exit"
)


@pytest.fixture
async def loaded(ledger: Session, settings: Settings, mirror: Mirror) -> None:
    """A board of 50 users."""
    insert(ledger, 50)
    await Tailer(settings.database_url, mirror).catch_up()


def environment(settings: Settings | None) -> dict[str, str]:
    """Ours, with the names of a test's stores or of none."""
    own = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    return own if settings is None else {**own, "DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}


def run(settings: Settings | None, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run the program to its end."""
    command = [sys.executable, PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, env=environment(settings), check=False)


def changed(statement: str, *arguments: str) -> list[str]:
    """The program with something about it changed beforehand."""
    lines = (
        "import sys",
        f"sys.path.insert(0, {str(PROGRAM.parents[1])!r})",
        "from service.arguments import parse",
        "from service.commands import reconcile",
        statement,
        f"sys.exit(reconcile.run(parse('reconcile', {list(arguments)!r}, program='reconcile.py')))",
    )
    return [sys.executable, "-c", "; ".join(lines)]


def report(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """The line of JSON that `--json` prints, which also tells the exit code."""
    (line,) = done.stdout.splitlines()
    fields: dict[str, Any] = json.loads(line)
    assert FIELDS.split() == list(fields)
    assert fields["exit"] == done.returncode
    return fields


def outcome(board: redis.Redis) -> Outcome:
    """What the last full run left for those who watch."""
    held: Any = board.get(f"{NOTE}:last")
    return msgspec.json.decode(held, type=Outcome)


@pytest.mark.usefixtures("loaded")
def test_drift_decides_the_exit_code(settings: Settings, board: redis.Redis) -> None:
    """0 in sync; 3 found only; 0 repaired; 3 repaired but meant to be told; 0 again."""
    in_sync = report(run(settings, "--json", "--fail-on-drift"))
    assert (0, 50, "", "full", False) == tuple(
        in_sync[name] for name in ("exit", "checked", "next_id", "mode", "dry_run")
    )
    board.zrem(BOARD, place(1))

    found = report(run(settings, "--json", "--dry-run", "--full"))
    assert (3, 1, 1, 0, 1) == tuple(found[name] for name in ("exit", "corrupt", "miscount", "repaired", "remaining"))
    told = run(settings)
    assert (0, b"1 corrupt (1 repaired, 0 overtaken, 0 left), size off by 1") == (
        told.returncode,
        told.stdout.partition(b", ")[2].partition(b", history")[0],
    )
    board.hdel(USERS, "user1")
    assert 3 == report(run(settings, "--json", "--fail-on-drift"))["exit"]
    assert (0, b"50 users, no drift") == ((done := run(settings)).returncode, done.stdout.partition(b", history")[0])
    asyncio.run(assert_mirror_equals_ledger(settings))


@pytest.mark.usefixtures("loaded")
def test_a_size_alone_is_drift(settings: Settings, board: redis.Redis) -> None:
    """Every member is right, yet the board answers nobody until its size is."""
    board.hincrby(STATE, "n", 1)

    assert [3, 3, 0] == [
        run(settings, *arguments).returncode for arguments in (["--dry-run"], ["--fail-on-drift"], ["--fail-on-drift"])
    ]


@pytest.mark.usefixtures("loaded")
def test_what_is_ahead_waits_for_permission(settings: Settings, board: redis.Redis) -> None:
    """3 as long as it is not set back."""
    board.hset(USERS, "user1", "1000000|")

    assert [3, 0, 0] == [
        run(settings, *arguments).returncode for arguments in ([], ["--allow-rewind"], ["--fail-on-drift"])
    ]


@pytest.mark.usefixtures("loaded")
def test_another_one_at_work_is_told(settings: Settings, ledger: Session) -> None:
    """4, or 0 for a cron job that does not mind."""
    ledger.execute("SELECT pg_advisory_lock(%s)", (RECONCILE_LOCK,))

    assert 4 == report(run(settings, "--json"))["exit"]
    assert 0 == run(settings, "--lock-busy-ok").returncode


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("mode", ["--full", "--incremental"])
@pytest.mark.parametrize("store_away", ["database_url", "redis_url"])
def test_a_store_that_is_away_ends_it(settings: Settings, store_away: str, mode: str) -> None:
    """5, in a sentence."""
    away = {"database_url": "postgresql://127.0.0.1:1/x", "redis_url": "redis://127.0.0.1:1"}
    done = run(msgspec.structs.replace(settings, **{store_away: away[store_away]}), mode, "--json")

    assert 5 == report(done)["exit"]
    assert done.stderr.splitlines()[-1].startswith(b"reconcile.py: ")
    assert b"Traceback" not in done.stderr


def test_without_a_board_there_is_nothing_to_compare(settings: Settings) -> None:
    """5 for --full; --incremental loads one, and a dry run of it says that it would have to."""
    assert 5 == run(settings).returncode
    assert 3 == run(settings, "--incremental", "--dry-run").returncode
    assert 0 == run(settings, "--incremental").returncode
    assert 0 == run(settings, "--fail-on-drift").returncode


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("mode", ["--full", "--incremental"])
def test_another_database_is_refused(settings: Settings, board: redis.Redis, stores: Any, mode: str) -> None:
    """6, and the board is as it was; only --incremental --force takes the other database for the right one."""
    before = everything(board)
    name = stores.create(stores.template)
    try:
        other = msgspec.structs.replace(settings, database_url=stores.url(name))
        assert 6 == report(run(other, mode, "--json"))["exit"]
        assert before == everything(board)
        assert (0 if mode == "--incremental" else 6) == run(other, mode, "--force", "--yes").returncode
    finally:
        stores.drop(name)


@pytest.mark.usefixtures("loaded")
async def test_another_database_is_forced_beside_a_running_service(settings: Settings, stores: Any) -> None:
    """The service feeds, and leaves such a board alone: it would wait for the run, and the run for it."""
    name = stores.create(stores.template)
    try:
        other = msgspec.structs.replace(settings, database_url=stores.url(name))
        async with opened(other) as ladder:
            await ladder.create(NewUser(UserId("ada"), "player-ada", 1500))
            assert 0 == (await asyncio.to_thread(run, other, "--incremental", "--force", "--yes")).returncode
            await ready(ladder)
        await assert_mirror_equals_ledger(other)
    finally:
        stores.drop(name)


def test_an_emptied_database_is_refused(settings: Settings, ledger: Session, board: redis.Redis) -> None:
    """Exit code 6, and no user is removed; 0 with --force and --yes."""
    insert(ledger, 1200)
    assert 0 == run(settings, "--incremental").returncode
    bypassing(ledger, "DELETE FROM users")

    assert 6 == run(settings).returncode
    assert 1200 == board.zcard(BOARD)
    assert 0 == run(settings, "--force", "--yes").returncode
    assert 0 == board.zcard(BOARD)


@pytest.mark.parametrize(
    "arguments",
    [["--nonsense"], ["--full", "--incremental"], ["extra"], ["--data", "/nowhere/at/all"], ["--dry"]],
    ids=str,
)
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    """2, before any store is asked."""
    done = run(None, *arguments)

    assert 2 == done.returncode
    assert b"Traceback" not in done.stderr


def test_one_store_is_not_enough(settings: Settings) -> None:
    """2, and the other one's name."""
    env = {name: value for name, value in environment(settings).items() if name != "REDIS_URL"}
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, env=env, check=False)

    assert 2 == done.returncode
    assert b"REDIS_URL is not set" in done.stderr


async def test_incremental_beside_a_service_is_content(ladder: Ladder, ledger: Session, settings: Settings) -> None:
    """The service holds the lock and keeps up: 0, and what was committed before is on the board."""
    await ready(ladder)
    insert(ledger, 50)
    done = await asyncio.to_thread(run, settings, "--incremental", "--json")

    assert (0, 50) == (report(done)["exit"], report(done)["checked"])
    await assert_mirror_equals_ledger(settings)


@pytest.mark.usefixtures("loaded")
def test_incremental_brings_the_tail(settings: Settings, ledger: Session) -> None:
    """Without a service it does what the service would."""
    ledger.execute("UPDATE users SET rating = rating + 1")

    assert 0 == run(settings, "--incremental").returncode
    asyncio.run(assert_mirror_equals_ledger(settings))


@pytest.mark.usefixtures("loaded")
def test_a_leader_that_does_not_lead_is_busy(settings: Settings, ledger: Session) -> None:
    """4 once whoever holds the lock had its time."""
    ledger.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
    command = changed("reconcile._STUCK_SECONDS = 0.3", "--incremental")
    done = subprocess.run(command, capture_output=True, env=environment(settings), check=False)

    assert 4 == done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whoever_is_killed_is_gone_on_with(
    settings: Settings, ledger: Session, board: redis.Redis, number: int
) -> None:
    """By a signal in the middle: the lock is free at once, and the next run is the same run, further on."""
    insert(ledger, 10_000)
    assert 0 == run(settings, "--incremental").returncode
    slowly = changed("reconcile.Reconcile.__init__.__kwdefaults__['duty'] = 0.01")
    with subprocess.Popen(slowly, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(settings)) as program:
        wait_until(lambda: board.exists(NOTE) == 1)
        program.send_signal(number)
        program.communicate()
    held: Any = board.get(NOTE)
    note = json.loads(held)
    done = report(run(settings, "--json"))

    assert (130 if number == signal.SIGINT else -number) == program.returncode
    assert (0, 10_000, note["report"]["run_id"]) == (done["exit"], done["checked"], done["run_id"])


@pytest.mark.usefixtures("loaded")
def test_a_terminal_shows_a_bar(settings: Settings) -> None:
    """On a terminal there is a progress bar, on standard error; piped there are plain lines."""
    terminal, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, PROGRAM], stdout=subprocess.PIPE, stderr=theirs,
        env={**environment(settings), "TERM": "xterm", "COLUMNS": "120"},
    ) as program:  # fmt: skip
        os.close(theirs)
        program.wait()
        shown = os.read(terminal, 65536).decode()
    os.close(terminal)

    assert "━" in shown
    assert "s left" in shown
    assert re.fullmatch(rb"History: 0 rows\nCompared: 150 of 150 users, [^\n]*\n", run(settings).stderr)


@pytest.mark.usefixtures("loaded")
def test_it_tells_of_the_history_that_it_wrote(settings: Settings, ledger: Session) -> None:
    """A dry run, and one that finds another at work, write none; nor does a comparison that fails keep it from that."""
    rows = "SELECT count(*), min(day)::text, max(day)::text FROM rating_history"
    dry = report(run(settings, "--json", "--dry-run"))
    assert (None, 0) == (dry["history_day"], dry["history_rows"])
    ledger.execute("SELECT pg_advisory_lock(%s)", (RECONCILE_LOCK,))
    assert 4 == run(settings).returncode
    ledger.execute("SELECT pg_advisory_unlock_all()")
    assert 0 == ledger.execute(rows).fetchall()[0][0]

    away = msgspec.structs.replace(settings, redis_url="redis://127.0.0.1:1")
    first = report(run(away, "--json"))
    assert (5, 50) == (first["exit"], first["history_rows"])
    assert [(50, first["history_day"], first["history_day"])] == ledger.execute(rows).fetchall()
    ledger.execute("UPDATE users SET rating = 5000 WHERE id = 'user7'")
    assert re.search(rb", history of [0-9]{4}-[0-9]{2}-[0-9]{2}: [0-9]+ rows, [0-9.]+ s\n$", run(settings).stdout)
    assert [(5000, 1)] == ledger.execute(
        "SELECT rating, rank FROM rating_history WHERE user_id = 'user7' ORDER BY day DESC LIMIT 1"
    ).fetchall()


@pytest.mark.usefixtures("loaded")
def test_a_history_that_cannot_be_written_is_no_reason_not_to_compare(
    settings: Settings, ledger: Session, board: redis.Redis
) -> None:
    """The board is repaired, and the exit code tells of the rest."""
    board.zrem(BOARD, place(1))
    ledger.execute("ALTER TABLE rating_history RENAME TO hidden")
    done = report(run(settings, "--json"))

    assert (1, 50, 1) == (done["exit"], done["checked"], done["repaired"])
    asyncio.run(assert_mirror_equals_ledger(settings))
    assert outcome(board).completed_at is not None


@pytest.mark.usefixtures("loaded")
def test_drift_left_over_outweighs_a_history_that_cannot_be_written(
    settings: Settings, ledger: Session, board: redis.Redis
) -> None:
    """3, and the error is told as well; not so if the comparison did not end."""
    board.hset(USERS, "user1", "1000000|")
    ledger.execute("ALTER TABLE rating_history RENAME TO hidden")
    done = report(run(settings, "--json"))

    assert (3, 1) == (done["exit"], done["remaining"])
    assert "rating_history" in done["error"]
    completed_at = outcome(board).completed_at
    ledger.execute("ALTER TABLE users RENAME TO hidden_users")
    assert 1 == run(settings).returncode
    assert completed_at == outcome(board).completed_at is not None


@pytest.mark.usefixtures("loaded")
def test_a_history_that_cannot_be_written_leaves_the_lock_to_the_comparison(
    settings: Settings, ledger: Session
) -> None:
    """At once, though the server may not have noticed yet that the session has ended."""
    ledger.execute("ALTER TABLE rating_history RENAME TO hidden")
    lingering = changed(
        "import asyncio; from service.store.postgres import Connection; open_still = [];"
        " Connection.close = lambda self: asyncio.sleep(0, open_still.append(self))",
        "--json",
        "--lock-busy-ok",
    )
    done = report(subprocess.run(lingering, capture_output=True, env=environment(settings), check=False))

    assert (1, 50) == (done["exit"], done["checked"])


def test_the_script_finds_its_environment(tmp_path: Path) -> None:
    """Started by another Python, from anywhere, it goes on in the project's environment."""
    if not (PROGRAM.parents[1] / ".venv").exists():
        pytest.skip("there is no .venv, as in a container image")
    other = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run([other, PROGRAM, "--help"], capture_output=True, cwd=tmp_path, check=False)

    assert (0, b"") == (done.returncode, done.stderr)
    assert b"exit codes:" in done.stdout
