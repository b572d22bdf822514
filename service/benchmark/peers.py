"""
Libraries that do the same over a sorted set: redis-rank of npm, leaderboard of PyPI. Both have to be installed by hand.

    npm install --prefix DIR redis-rank ioredis
    python3 -m venv DIR && DIR/bin/pip install leaderboard 'redis<3'

Each runs as a program of its own, in the language it is made for, over a sorted set of the same users.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .contestants import BATCH, PAGE, RADIUS, Contestant
from .results import KindOfRead, Sample, Timing

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

KEY = "ladder-benchmark:bare"
_HERE = Path(__file__).parent
_GRACE_SECONDS = 60.0
_READS: tuple[tuple[str, str, KindOfRead, int], ...] = (
    ("rank", "score and rank", "rank", 1),
    ("batch", f"score and rank of {BATCH} members at once", "rank", BATCH),
    ("page", f"page of {PAGE}", "page", 1),
    ("around", f"{2 * RADIUS + 1} rows around a member", "around", 1),
)


class PeerFailed(Exception):
    """A peer does not run; the message is one sentence."""


class Peer(msgspec.Struct, frozen=True):
    """A library, and the command that runs it."""

    name: str
    command: tuple[str, ...]


def find(options: argparse.Namespace, redis_url: str, ids_file: Path) -> tuple[list[Peer], list[str]]:
    """Return those that run here, and for each other one a sentence that says why not."""
    peers, missing = [], []
    commands = {
        "redis-rank": options.redis_rank and ("node", str(_HERE / "redis_rank.mjs"), str(options.redis_rank.resolve())),
        "leaderboard": options.leaderboard
        and (str(options.leaderboard.resolve() / "bin" / "python"), str(_HERE / "peer_leaderboard.py")),
    }
    for name, command in commands.items():
        if not command:
            missing.append(f"{name} was not measured: --{name} does not say where it is.")
            continue
        peer = Peer(name, (*command, redis_url, KEY, str(ids_file)))
        try:
            version = _ask(peer, "version", 0)
        except PeerFailed as error:
            missing.append(f"{name} was not measured: {error}.")
        else:
            peers.append(Peer(f"{name} {msgspec.json.decode(version, type=str)}", peer.command))
    return peers, missing


def contestants(peers: Sequence[Peer]) -> list[Contestant]:
    """What each is asked."""
    return [_contestant(peer, *read) for peer in peers for read in _READS]


def _contestant(peer: Peer, what: str, title: str, kind: KindOfRead, batch: int) -> Contestant:
    return Contestant(
        Timing(f"{peer.name.partition(' ')[0]}-{what}", f"{peer.name}: {title}", kind, batch, peer=True),
        lambda seconds: msgspec.json.decode(_ask(peer, what, seconds), type=Sample),
    )


def _ask(peer: Peer, what: str, seconds: float) -> str:
    command = [*peer.command, what, str(seconds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + _GRACE_SECONDS)  # noqa: S603  the user's
    except subprocess.CalledProcessError as error:
        message = (error.stderr.strip().splitlines() or ["it said nothing"])[-1].strip(". ")
        raise PeerFailed(message) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerFailed(str(error).strip(". ")) from error
    return done.stdout
