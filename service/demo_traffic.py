"""
Plays matches between the users of a running service, so that a first look shows a board that moves.

A program of its own, which `scripts/server --demo-traffic` starts beside the service: it knows the public API only,
and asks no more of it than it is given. Elo: two of similar rating play, the winner takes from the loser what the
result was worth. It goes on until it is stopped; if it cannot, it says why, once, and ends.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from service.model import MAX_RATING, MIN_RATING

if TYPE_CHECKING:
    from collections.abc import Callable

K_FACTOR = 24
_RADIUS = 5
"""Opponents are among so many places above and below."""
_DRAWS = 0.1
_ANSWER_SECONDS = 5.0
_PATIENCE_SECONDS = 300.0
"""So long it goes on asking a service that does not answer, or has no users."""
_LONGEST_PAUSE_SECONDS = 30.0
_NO_KEY = {http.client.UNAUTHORIZED, http.client.FORBIDDEN}


class GaveUp(Exception):
    """There is no going on; the message is one sentence."""


class Player(NamedTuple):
    """Somebody on the board."""

    id: str
    rating: int


class Api:
    """The service, as anybody sees it; one connection, one request at a time."""

    def __init__(
        self, host: str, port: int, key: str | None = None, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS)
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._sleep = sleep
        self._silent_since: float | None = None

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """
        Return status and answer, None in place of one that cannot be had now, after the pause that was asked for.

        Raises `GaveUp` when writing needs another key, or nothing was answered for five minutes.
        """
        try:
            self._connection.request(
                method, path, None if body is None else json.dumps(body), self._headers if body is not None else {}
            )
            response = self._connection.getresponse()
            raw = response.read()
            answer = json.loads(raw) if raw else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            self._missed(str(error) or type(error).__name__)
            self._sleep(1)
            return 0, None
        if response.status in _NO_KEY:
            message = "writing needs a key: set LADDER_DEMO_KEY to one whose SHA-256 is in API_KEYS"
            raise GaveUp(message)
        if response.status in (http.client.TOO_MANY_REQUESTS, http.client.SERVICE_UNAVAILABLE):
            self._missed(f"status {response.status}")
            self._sleep(_pause(response.getheader("Retry-After")))
            return response.status, None
        self._silent_since = None
        return response.status, answer

    def _missed(self, reason: str) -> None:
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        if now - self._silent_since > _PATIENCE_SECONDS:
            message = f"the service has not answered for {_PATIENCE_SECONDS:.0f} s ({reason})"
            raise GaveUp(message)


def _pause(retry_after: str | None) -> float:
    seconds = float(retry_after) if retry_after and retry_after.isdecimal() else 1.0
    return min(max(seconds, 0.1), _LONGEST_PAUSE_SECONDS)


def exchanged(first: int, second: int, score: float) -> int:
    """Return how much the first of two ratings gains and the second loses, both staying within the limits."""
    expected = 1 / (1 + 10 ** ((second - first) / 400))
    gain = round(K_FACTOR * (score - expected))
    low = max(MIN_RATING - first, second - MAX_RATING)
    high = min(MAX_RATING - first, second - MIN_RATING)
    return min(max(gain, low), high)


def play(api: Api, source: random.Random, total: int) -> int:
    """Play one match between somebody of the first `total` places and a neighbour; returns how many there are now."""
    status, page = api.ask("GET", f"/leaderboard?limit=1&offset={_place(source, total)}")
    if status != http.client.OK:
        return total
    total = page["total"]
    if not page["items"]:
        return total
    chosen = page["items"][0]["id"]
    status, window = api.ask("GET", f"/users/{quote(chosen, safe='')}/neighbors?radius={_RADIUS}")
    if status != http.client.OK:
        return total
    players = [Player(row["id"], row["rating"]) for row in window["items"]]
    first = next((player for player in players if player.id == chosen), None)
    others = [player for player in players if player.id != chosen]
    if first is None or not others:
        return total
    second = source.choice(others)
    score = 0.5 if source.random() < _DRAWS else float(source.random() < 0.5)
    gain = exchanged(first.rating, second.rating, score)
    # Deltas: whoever else rates the two meanwhile is not overruled. Out of range is refused, and nothing changes.
    if gain and _add(api, first.id, gain):
        _add(api, second.id, -gain)
    return total


def _add(api: Api, user_id: str, delta: int) -> bool:
    status, _ = api.ask("PATCH", f"/users/{quote(user_id, safe='')}/rating", {"delta": delta})
    return status == http.client.OK


def _place(source: random.Random, total: int) -> int:
    """Return a place of the board; every third match is among the first hundred, which is what everybody looks at."""
    among = min(total, 100) if source.random() < 1 / 3 else total
    return source.randrange(max(among, 1))


def main() -> int:
    """Play until stopped."""
    parser = argparse.ArgumentParser(prog="demo-traffic", description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("rate", type=float)
    options = parser.parse_args()
    api = Api(options.host, options.port, os.environ.get("LADDER_DEMO_KEY"))
    source, total = random.Random(), 0  # noqa: S311  nobody is to be surprised but the eye
    due = time.monotonic()
    try:
        while True:
            total = play(api, source, total)
            # No match is made up for: after a pause it goes on at the same rate.
            due = max(due + 1 / options.rate, time.monotonic() - 1 / options.rate)
            time.sleep(max(due - time.monotonic(), 0))
    except GaveUp as gave_up:
        print(f"The demo traffic ends: {gave_up}.", file=sys.stderr)  # noqa: T201  the operator's terminal
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
