"""
The slow log of the run's Redis: whatever the product itself asked that held the server for more than 2 ms.

On a shared machine any call may be interrupted, and then it is in the log too. So a call is believed to be slow only
if it is slow again each of several times; one that writes, or is too long for the log to keep, if it was so as a rule.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import redis
from redis.exceptions import ResponseError

from service.store import lua

LIMIT_MICROSECONDS = 2000
AGAIN = 5
RULE = 3
"""So many slow calls at least, and more than half of those that there were, are a rule."""
_NAMES = ("slowlog-log-slower-than", "slowlog-max-len")
_SCRIPTS = {script.sha.encode(): script for script in lua.ALL}
_LOOP = "local sum = 0 for number = 1, 200000 do sum = sum + number end return sum"
_LOOP_SECONDS = 0.0015
"""How long that takes where 2 ms is the limit; elsewhere the limit is longer in proportion."""


class SlowLog:
    """The log of one server while the tests run."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._calls: Counter[str] = Counter()

    def slow(self) -> list[str]:
        """The calls of the product since the last look that are slow, while what they read is still there."""
        calls, before = _calls(self._client), self._calls
        self._calls = calls
        as_a_rule: defaultdict[str, list[int]] = defaultdict(list)
        found = []
        for _, _, micros, command, _, client_name in self._take():
            if client_name != b"ladder":
                continue
            if not _may_be_asked_again(self._client, command):
                # A list of a thousand must be of one instant, and may take longer: decision 10.
                if _called(command) != lua.ROWS_OF.name:
                    as_a_rule[_called(command)].append(micros)
            elif (again := self._again(command)) > LIMIT_MICROSECONDS:
                found.append(
                    f"{_called(command)}: {micros} us, and {again:.0f} us at least when asked again: {command}"
                )
        for name, slow in as_a_rule.items():
            made = calls - before
            if len(slow) >= RULE and 2 * len(slow) > made[name if name in made else "evalsha"]:
                found.append(f"{name}: {len(slow)} times, {sorted(slow)[len(slow) // 2]} us in the middle")
        return found

    def _take(self) -> list[Any]:
        taken: list[Any] = self._client.execute_command("SLOWLOG", "GET", -1)
        self._client.slowlog_reset()
        return taken

    def _again(self, command: list[bytes]) -> float:
        """
        Return the microseconds that a command takes at least at this server's usual pace; 0 for fewer than the log keeps.

        The pace is looked at before each time: the machine may be another program's at one moment and ours at the next.
        """
        taken = []
        for _ in range(AGAIN):
            pace = self._pace()
            self._take()
            with contextlib.suppress(ResponseError):
                self._client.execute_command(*command)
            taken.append(max((entry[2] for entry in self._take() if entry[3] == command), default=0) / pace)
        return min(taken)

    def _pace(self) -> float:
        """How many times slower than usual this server is, 1 if it is not."""
        begun = time.perf_counter()
        self._client.eval(_LOOP, 0)
        return max(1.0, (time.perf_counter() - begun) / _LOOP_SECONDS)


def _calls(client: redis.Redis) -> Counter[str]:
    stats: dict[str, dict[str, int]] = client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): told["calls"] for name, told in stats.items()})


def _called(command: list[bytes]) -> str:
    script = _SCRIPTS.get(command[1]) if len(command) > 1 else None
    return script.name if script else command[0].decode().lower()


def _may_be_asked_again(client: redis.Redis, command: list[bytes]) -> bool:
    if any(part.startswith(b"... (") or part.endswith(b" more bytes)") for part in command):
        return False
    if script := _SCRIPTS.get(command[1] if len(command) > 1 else b""):
        return "flags=no-writes" in script.text.partition("\n")[0]
    told: dict[str, dict[str, Any]] = client.execute_command("COMMAND", "INFO", command[0])
    return any("readonly" in known["flags"] for known in told.values())


@contextlib.contextmanager
def watched(client: redis.Redis) -> Iterator[SlowLog]:
    """Have the server log what is slow, and put its settings back; where that is not allowed it logs what it logs."""
    held: dict[Any, Any] = {}
    with contextlib.suppress(ResponseError):
        held = client.config_get(*_NAMES)
        client.config_set(_NAMES[0], LIMIT_MICROSECONDS, _NAMES[1], 1000)
    client.slowlog_reset()
    try:
        yield SlowLog(client)
    finally:
        for name, value in held.items():
            client.config_set(name, value)
