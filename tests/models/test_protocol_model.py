"""The product's protocol keeps both promises under every fault, and each of the others breaks one."""

from __future__ import annotations

from typing import Literal

import pytest

from .explore import explore
from .protocol import Faults, Model, Promise, Protocol, Stamp

FAULTS = {
    "none": Faults(),
    "crash": Faults(crashes=1),
    "late": Faults(late=1),
    "rollback": Faults(rollbacks=1),
    "failover": Faults(failovers=1),
    "all": Faults(crashes=1, late=1, rollbacks=1),
}
ONE_USER, TWO_USERS, BOTH = (0, 0), (0, 1), (0, 0, 1)


def outcome(
    protocol: Protocol, faults: str, writers: tuple[int, ...], enough: frozenset[Promise] = frozenset()
) -> tuple[set[Promise], int]:
    """Visit every world of a protocol; returns the broken promises and the number of worlds, as `explore` does."""
    model = Model(protocol, writers)
    return explore(model.start(FAULTS[faults]), model.steps, set(enough))


@pytest.mark.parametrize("writers", [ONE_USER, TWO_USERS])
@pytest.mark.parametrize("faults", FAULTS)
def test_what_the_product_does_keeps_both_promises(faults: str, writers: tuple[int, ...]) -> None:
    """Commit, then put; versions compared; rows and checkpoint in one step; the token checked: nothing is lost."""
    broken, worlds = outcome(Protocol(), faults, writers)

    assert set() == broken
    assert worlds > 200


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("unsettled", ["none", "first"])
@pytest.mark.parametrize("faults", FAULTS)
def test_it_keeps_them_with_three_writers(faults: str, unsettled: Literal["none", "first"]) -> None:
    """Two race for one user while a third writes another; also without the rows above the horizon."""
    broken, _ = outcome(Protocol(unsettled=unsettled), faults, BOTH)

    assert set() == broken


PLAIN = Protocol(unsettled="none")
"""The tail without the rows above the horizon, and without a claim of freshness."""
UNTAILED = Protocol(recovery="none")
EVERY = set(FAULTS)
FALLEN = {"rollback", "failover", "all"}


@pytest.mark.parametrize(
    ("protocol", "promise", "breaking"),
    [
        pytest.param(UNTAILED._replace(compares_versions=False), "converges", EVERY, id="blind put"),
        pytest.param(
            UNTAILED._replace(compares_versions=False, puts_first=True),
            "converges",
            EVERY - {"none"},
            id="blind put in the transaction",
        ),
        pytest.param(UNTAILED, "converges", EVERY - {"none"}, id="no recovery"),
        pytest.param(Protocol(recovery="outbox"), "converges", FALLEN, id="outbox"),
        pytest.param(
            PLAIN._replace(follows_sequence=True), "converges", EVERY - {"none"}, id="watermark on the sequence"
        ),
        pytest.param(
            PLAIN._replace(checkpoint_in_postgres=True, checks_token=False),
            "converges",
            FALLEN,
            id="checkpoint in Postgres",
        ),
        pytest.param(
            PLAIN._replace(checkpoint_apart=True, checks_token=False),
            "converges",
            FALLEN,
            id="checkpoint moved by a call of its own",
        ),
        pytest.param(PLAIN._replace(checks_token=False), "converges", FALLEN, id="token not checked"),
        pytest.param(PLAIN._replace(compares_versions=False), "converges", EVERY, id="blind put with a tail"),
        pytest.param(PLAIN._replace(horizon_apart=True), "converges", EVERY - {"none"}, id="horizon read apart"),
        pytest.param(
            Protocol(heartbeat_checks_token=False), "fresh", FALLEN - {"failover"}, id="heartbeat taken for caught up"
        ),
        pytest.param(Protocol(unsettled="last"), "fresh", EVERY, id="unsettled rows last"),
        pytest.param(Protocol(clock_read_first=False), "fresh", EVERY, id="clock read after the rows"),
    ],
)
def test_every_other_way_breaks_a_promise(protocol: Protocol, promise: Promise, breaking: set[str]) -> None:
    """Each is broken by these faults, and by no others: so it is known what each rule is for."""
    enough = frozenset({promise})
    broken = {
        faults
        for faults in FAULTS
        if any(promise in outcome(protocol, faults, writers, enough)[0] for writers in (ONE_USER, TWO_USERS))
    }

    assert breaking == broken


@pytest.mark.parametrize("stamp", ["nothing", "the taker"])
def test_a_mark_that_does_not_name_its_clock_is_taken_for_fresher_than_it_is(stamp: Stamp) -> None:
    """After a failover: it must name the server whose clock was read, not the one that takes the batch."""
    broken, _ = outcome(Protocol(stamp=stamp), "failover", ONE_USER, frozenset({"fresh"}))

    assert {"fresh"} == broken
