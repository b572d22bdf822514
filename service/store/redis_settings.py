"""
What a Redis must be set to so that it can be a mirror, and how an operator is told.

Asked of INFO, and of CONFIG where that is allowed: a managed Redis forbids it. A setting that is not known is not warned about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from redis.exceptions import NoScriptError

from service.errors import Unsupported
from service.store.redis import translate, translated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.store.redis import Client

OLDEST = (7, 0)
_SECTIONS = ("server", "memory", "replication")
# Refused with NOSCRIPT by every server that runs scripts.
_NO_SCRIPT = ("EVALSHA", "0" * 40, 0)
_CONFIG = (
    "maxmemory-policy",
    "stop-writes-on-bgsave-error",
    "save",
    "lazyfree-lazy-server-del",
    "min-replicas-to-write",
    "locale-collate",
)


_WITHOUT_SCRIPTS = (
    "REDIS_URL names a server that runs no Lua scripts for this user (EVALSHA is refused): name a Redis or Valkey itself,"
    " and a user who may call EVALSHA and SCRIPT LOAD"
)


_WITHOUT_INFO = (
    "Redis refuses INFO, so a failover to another server is not noticed and the lag is only right if the servers' clocks"
    " agree: allow the command (+info)"
)


class Verdict(msgspec.Struct, frozen=True):
    """
    Why a Redis must not be a mirror, "" if it may, and what is not as it should be.

    `run` is the run_id of the server that was judged, "" if it does not tell it.
    """

    refusal: str = ""
    warnings: tuple[str, ...] = ()
    is_replica: bool = False
    run: str = ""


async def examine(client: Client) -> Verdict:
    """Ask a Redis for its settings and judge them; raises `Unavailable`. One round trip."""
    with translated():
        async with client.pipeline(transaction=False) as pipe:
            for section in _SECTIONS:
                pipe.execute_command("INFO", section)
            for name in _CONFIG:
                pipe.execute_command("CONFIG GET", name)
            pipe.execute_command(*_NO_SCRIPT)
            *replies, probed = await pipe.execute(raise_on_error=False)
    # A reply that is an error says that we may not ask: then nothing is known.
    facts = [reply.items() for reply in replies if isinstance(reply, dict)]
    verdict = judge({_text(name): _text(value) for pairs in facts for name, value in pairs})
    if isinstance(replies[0], Exception):
        verdict = msgspec.structs.replace(verdict, warnings=(*verdict.warnings, _WITHOUT_INFO))
    if verdict.refusal or isinstance(probed, NoScriptError) or not isinstance(probed, Exception):
        return verdict
    if isinstance(translate(probed), Unsupported):
        return msgspec.structs.replace(verdict, refusal=_WITHOUT_SCRIPTS)
    return verdict


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def judge(facts: Mapping[str, str]) -> Verdict:
    """Judge a server by the fields of INFO and CONFIG that are known; pure."""
    version = facts.get("redis_version", "")
    policy = facts.get("maxmemory-policy", facts.get("maxmemory_policy", ""))
    mode = facts.get("redis_mode", facts.get("server_mode", ""))
    is_replica = facts.get("role") == "slave"
    refusal = ""
    if mode == "sentinel":
        refusal = "REDIS_URL names a Sentinel, which holds no data: name the master that it watches"
    elif mode == "cluster":
        refusal = (
            "REDIS_URL names a node of a Redis Cluster, which cannot be the mirror: name a Redis that runs without"
            " cluster-enabled"
        )
    elif (found := _version(version)) is not None and found < OLDEST:
        refusal = f"Redis is version {version}, which lacks read-only scripts: use Redis 7.0, Valkey 7.2, or newer"
    elif is_replica:
        master = ":".join(filter(None, (facts.get("master_host"), facts.get("master_port")))) or "another server"
        refusal = (
            f"REDIS_URL leads to a replica of {master}, which takes no writes and may lag: name the master in REDIS_URL,"
            " or have the proxy or DNS name in it lead to the master"
        )
    elif policy.startswith("allkeys-"):
        refusal = (
            f"Redis may evict the board, because its maxmemory-policy is {policy}: set it to noeviction or to one of"
            " volatile-*, which evicts cached users only"
        )
    return Verdict(refusal, tuple(_warnings(facts)), is_replica, facts.get("run_id", ""))


def _warnings(facts: Mapping[str, str]) -> list[str]:
    found = []
    if facts.get("stop-writes-on-bgsave-error") == "yes" and facts.get("save", "") != "":
        found.append(
            "Redis stops taking writes when it cannot save a snapshot (stop-writes-on-bgsave-error yes): the mirror needs"
            " no snapshot to be right, so set it to no"
        )
    if facts.get("lazyfree-lazy-server-del") == "no":
        found.append(
            "Redis frees a large key that is replaced while all clients wait (lazyfree-lazy-server-del no): set it to yes"
        )
    needed, connected = facts.get("min-replicas-to-write", "0"), facts.get("connected_slaves", "")
    if needed.isdecimal() and connected.isdecimal() and int(needed) > int(connected):
        found.append(
            f"Redis takes no writes with fewer than {needed} replicas (min-replicas-to-write) and has {connected}: the"
            " mirror stands still until they are connected"
        )
    if facts.get("locale-collate", "") not in ("", "C", "POSIX"):
        found.append("Redis compares strings by a language's rules (locale-collate): set it to C")
    return found


def _version(text: str) -> tuple[int, int] | None:
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None
