"""A store is emptied, killed, stopped or set back under load: no answer is wrong, and then both are equal, row by row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import msgspec
import pytest

from service.model import UserId
from service.order import member
from tests.api.serving import wait_until
from tests.servers.own_redis import own_redis

from .clients import measured
from .stage import Stage, stage
from .traffic import Traffic

ANSWERS = 40
Injected = Callable[[Stage], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def running() -> Iterator[Stage]:
    """One service for all faults: each leaves it as it found it, or fails."""
    with stage() as made:
        yield made


@contextmanager
def flushed(at: Stage) -> Iterator[None]:
    at.redis.flush()
    yield


@contextmanager
def killed(at: Stage) -> Iterator[None]:
    at.redis.forget()
    at.redis.kill()
    yield
    at.redis.start()


@contextmanager
def set_back(at: Stage) -> Iterator[None]:
    at.redis.save()
    epoch = at.command("HGET", "{ladder}:state", "epoch")
    yield
    at.redis.kill()
    at.redis.start()
    wait_until(at.serves)
    # Still the same life of the board: what it missed was replayed, nothing was loaded.
    assert epoch == at.command("HGET", "{ladder}:state", "epoch")
    at.redis.forget()


def hung(seconds: float) -> Injected:
    @contextmanager
    def inject(at: Stage) -> Iterator[None]:
        with at.redis.paused():
            yield
            time.sleep(seconds)

    return inject


def by_hand(*words: str | int) -> Injected:
    @contextmanager
    def inject(at: Stage) -> Iterator[None]:
        assert at.command(*words)
        yield

    return inject


@contextmanager
def forgotten(at: Stage) -> Iterator[None]:
    assert 200 == at.service.get("/users/user7").status_code
    at.command("DEL", "user:user7")
    yield
    assert "user7" == at.service.get("/users/user7").json()["id"]


@contextmanager
def full(at: Stage) -> Iterator[None]:
    used = int(at.command("INFO", "memory")["used_memory"])
    at.command("CONFIG", "SET", "maxmemory", used // 2)
    yield
    at.command("CONFIG", "SET", "maxmemory", 0)


@contextmanager
def evicting(at: Stage) -> Iterator[None]:
    used = int(at.command("INFO", "memory")["used_memory"])
    at.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    at.command("CONFIG", "SET", "maxmemory", used // 2)
    yield
    at.command("CONFIG", "SET", "maxmemory", 0)
    at.command("CONFIG", "SET", "maxmemory-policy", "noeviction")


@contextmanager
def slow(at: Stage) -> Iterator[None]:
    at.proxy.latency = 0.08
    yield
    at.proxy.latency = 0.0


@contextmanager
def black_hole(at: Stage) -> Iterator[None]:
    at.proxy.lose_requests = at.proxy.lose_replies = True
    yield
    at.background.call(at.proxy.heal)
    at.background.call(at.proxy.reset)


def path(url: str) -> str:
    """The socket of a URL."""
    return url.removeprefix("unix://")


@contextmanager
def failed_over(at: Stage) -> Iterator[None]:
    with lagging_copy(at) as copy:
        at.background.call(at.proxy.lead_to, path(copy))
        yield
        at.background.call(at.proxy.lead_to, path(at.redis.url))


@contextmanager
def split(at: Stage) -> Iterator[None]:
    with lagging_copy(at) as copy:
        for turn in range(8):
            at.background.call(at.proxy.lead_to, path((copy, at.redis.url)[turn % 2]))
            time.sleep(0.3)
        yield


@contextmanager
def lagging_copy(at: Stage) -> Iterator[str]:
    """A server with what the other one held half a second ago, as a lagging replica has when it is promoted."""
    with own_redis() as copy:
        copy.copy_snapshot(at.redis)
        copy.start()
        time.sleep(0.5)
        yield copy.url


@contextmanager
def sessions_ended(at: Stage) -> Iterator[None]:
    for _ in range(5):
        at.postgres.terminate_sessions()
        time.sleep(0.2)
    yield


@contextmanager
def postgres_stopped(at: Stage) -> Iterator[None]:
    at.postgres.kill()
    yield
    at.postgres.start()


@contextmanager
def postgres_hung(at: Stage) -> Iterator[None]:
    with at.postgres.paused():
        yield


class Fault(msgspec.Struct, frozen=True):
    """How it is done, and what clients must have seen of it while it lasted: any one of each group."""

    inject: Injected
    seen: tuple[frozenset[str], ...] = ()

    def is_seen(self, clients: Traffic) -> bool:
        """Whether clients have seen all of it."""
        return all(group & clients.seen.keys() for group in self.seen)


SQL = frozenset({"postgres"})
PENDING = frozenset({"write pending"})
REFUSED = frozenset({"unavailable", "outcome-unknown"})
STALE = frozenset({"stale redis"})
SHAKEN = frozenset({"unavailable", "outcome-unknown", "read refused"})

FAULTS = {
    "flushed": Fault(flushed, (SQL,)),
    "killed, empty": Fault(killed, (SQL, PENDING)),
    "killed, old snapshot": Fault(set_back),  # it is killed at the end, and says itself what became of it
    "hung": Fault(hung(3), (SQL, PENDING)),
    "board deleted": Fault(by_hand("DEL", "{ladder}:board"), (SQL,)),
    "users deleted": Fault(by_hand("DEL", "{ladder}:users"), (SQL,)),
    "state deleted": Fault(by_hand("DEL", "{ladder}:state"), (SQL,)),
    "cached user deleted": Fault(forgotten),
    "ghost": Fault(by_hand("ZADD", "{ladder}:board", 1500, "ghost~ghost"), (SQL,)),
    "1,000 users lost": Fault(by_hand("HDEL", "{ladder}:users", *(f"user{n}" for n in range(1, 1001))), (SQL,)),
    "a member removed": Fault(by_hand("ZREM", "{ladder}:board", member("name-7", UserId("user7"))), (SQL,)),
    "maxmemory": Fault(full, (PENDING,)),
    "eviction": Fault(evicting, (SQL,)),
    "slow": Fault(slow),
    "black hole": Fault(black_hole, (SQL, PENDING)),
    "failover to an older copy": Fault(failed_over, (SQL,)),
    "flapping between two masters": Fault(split, (SQL,)),
    "sessions ended": Fault(sessions_ended, (SHAKEN,)),
    "postgres stopped": Fault(postgres_stopped, (STALE, REFUSED)),
    "postgres hung": Fault(postgres_hung, (STALE, REFUSED)),
}


def strike(at: Stage, fault: Fault, clients: Traffic) -> None:
    """Inject it under load, and wait for a good many answers while it lasts and after."""
    wait_until(lambda: clients.answers >= ANSWERS)
    clients.seen.clear()
    with fault.inject(at):
        before = clients.answers
        wait_until(lambda: clients.answers >= before + ANSWERS and fault.is_seen(clients))
    before = clients.answers
    wait_until(lambda: clients.answers >= before + ANSWERS)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_under_load(running: Stage, name: str) -> None:
    """Every answer fits a state that the board was in; no acknowledged write is lost; then the board is exact."""
    with running.busy(writing=True) as clients:
        strike(running, FAULTS[name], clients)
    seconds = running.heal()
    kept = clients.check_kept()
    seen = ", ".join(f"{count} {what}" for what, count in sorted(clients.seen.items()))
    measured(f"{name}: {seen}; slowest {clients.slowest_ms} ms; exact {seconds:.1f} s after, {kept} writes kept")
    assert [] == running.service.defects()


@pytest.mark.slow
def test_a_redis_that_hangs_for_long(running: Stage) -> None:
    """As above, for half a minute: what it is sent meanwhile it carries out in the end, and the versions decide."""
    fault = Fault(hung(30), (SQL, PENDING))
    with running.busy(writing=True) as clients:
        strike(running, fault, clients)
    seconds = running.heal()
    measured(f"hung for 30 s: slowest {clients.slowest_ms} ms; exact {seconds:.1f} s after")
    clients.check_kept()
    assert [] == running.service.defects()
