"""Many connections at once: the atomic steps leave exactly one outcome."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from service.store import lua

from .calls import BOARD_USERS_STATE, SOURCE, Row, Scripts
from .reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.store.redis import Client

USERS = 8
VERSIONS = 48
BYSTANDER = Row("bystander", 1, 1500, "bystander")


async def race(clients: Sequence[Client], commands: Sequence[lua.Command]) -> list[list[Any]]:
    """Make all the calls at the same time, spread over the clients, each client's in turn; returns the replies."""
    await asyncio.gather(*(client.execute_command("PING") for client in clients))

    async def in_turn(number: int) -> list[list[Any]]:
        return [(await lua.pipeline(clients[number], [command]))[0] for command in commands[number :: len(clients)]]

    return [reply for replies in await asyncio.gather(*map(in_turn, range(len(clients)))) for reply in replies]


def put(rows: Sequence[Row]) -> lua.Command:
    """A put as the product sends it."""
    return (lua.PUT, 3, *BOARD_USERS_STATE, SOURCE, *(field for row in rows for field in row.fields_and_before()))


@pytest.mark.parametrize("seed", range(5))
async def test_racing_puts_leave_the_newest_of_each_user(scripts: Scripts, clients: list[Client], seed: int) -> None:
    """Every version of a few users, renames and deletions among them, in random order over all connections."""
    chance = random.Random(seed)
    users = [
        [
            Row(f"user{user}", version)
            if chance.random() < 0.1
            else Row(f"user{user}", version, chance.randint(1495, 1505), f"name{user}{'x' * chance.randint(0, 2)}")
            for version in range(2 + user, 2 + user + USERS * VERSIONS, USERS)
        ]
        for user in range(USERS)
    ]
    expected = Reference()
    for row in (BYSTANDER, *(row for versions in users for row in versions)):
        expected.write(row)
    batches = list(zip(*(chance.sample(versions, VERSIONS) for versions in users), strict=True))
    scripts.start(BYSTANDER)

    replies = await race(clients, [put(chance.sample(batch, USERS)) for batch in batches])
    found = scripts.contents()

    assert expected.board() == found.board
    assert {user: str(row.version) for user, row in expected.users.items()} == {
        user: held.partition("|")[0] for user, held in found.users.items()
    }
    assert str(len(found.board)) == found.state["n"]
    assert {b"ok"} == {reply[0] for reply in replies}
    assert {b"applied", b"newer"} == {outcome for reply in replies for outcome in reply[2::4]}


@pytest.mark.parametrize("seen", ["", "epoch"])
async def test_of_racing_begins_one_wins(scripts: Scripts, clients: list[Client], seen: str) -> None:
    """All saw the same board, or none: one empties it, and the others do not wipe the winner's work."""
    if seen:
        scripts.start(BYSTANDER)

    replies = await race(
        clients,
        [
            (lua.BEGIN, 3, *BOARD_USERS_STATE, seen, f"epoch{number}", f"token{number}", SOURCE, "700", 0, 1)
            for number in range(len(clients))
        ],
    )
    winner = replies.index([b"ok"])

    assert [[b"epoch"]] * (len(clients) - 1) == replies[:winner] + replies[winner + 1 :]
    assert (f"epoch{winner}", f"token{winner}") == (scripts.state("epoch"), scripts.state("tok"))


async def test_of_racing_pages_one_wins(scripts: Scripts, clients: list[Client]) -> None:
    """Two that feed the same board read the same token: the rows and the cursor of one are there, whole."""
    scripts.start()
    token = scripts.state("tok")

    replies = await race(
        clients,
        [
            (
                *(lua.APPLY, 3, *BOARD_USERS_STATE, "epoch", token, f"next{number}"),
                *("800", f"user{number}", "", "", "", *Row(f"user{number}", 1, 1500, f"name{number}").fields()),
            )
            for number in range(len(clients))
        ],
    )
    winner = replies.index([b"ok", 1])

    assert [[b"token"]] * (len(clients) - 1) == replies[:winner] + replies[winner + 1 :]
    assert [(f"name{winner}", f"user{winner}", 1500)] == scripts.contents().board
    assert (f"user{winner}", f"next{winner}") == (scripts.state("ci"), scripts.state("tok"))


async def test_racing_fills_leave_the_newest_object(scripts: Scripts, clients: list[Client]) -> None:
    """Slow readers and writers store versions of one user in random order: the highest stays."""
    versions = random.sample(range(1, 201), 200)

    await race(clients, [(lua.STORE_OBJECTS, 1, "user:a", "00c0ffee", version, "{}", 60_000) for version in versions])

    assert {"user:a": "200|00c0ffee|{}"} == scripts.contents().others


async def test_a_read_between_writes_is_of_one_instant(scripts: Scripts, clients: list[Client]) -> None:
    """While a user jumps from the top to the bottom and back, rating, rank and position always belong together."""
    scripts.start(*(Row(f"user{number}", 1, 2000 - number, f"name{number}") for number in range(10)))
    writer, *readers = clients
    scripts.put(Row("m", 1, 1000, "mmm"))
    jumps = [put([Row("m", version, 3000 if version % 2 else 1000, "mmm")]) for version in range(2, 302)]
    written = asyncio.create_task(race([writer], jumps))
    look_up = (lua.RANK, 3, *BOARD_USERS_STATE, SOURCE, "m", "user0")
    seen = set()
    while not written.done():
        for reply in await race(readers, [look_up] * len(readers)):
            seen.add((tuple(reply[4:7]), tuple(reply[8:11])))
    await written

    assert {((b"3000", 1, 1), (b"2000", 2, 2)), ((b"1000", 11, 11), (b"2000", 1, 1))} == seen
