"""The way the product calls its scripts: by digest, in a pipeline, loading them only when Redis forgot them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio
import redis.client
from redis.exceptions import ResponseError

from service.errors import StoreBug, Unavailable
from service.store import lua
from service.store import redis as redis_store
from service.store.mirror import Mirror

from .calls import BOARD_STATE, BOARD_USERS_STATE, SOURCE, Row, Scripts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.store.redis import Client

ANNA = Row("a", 11, 1500, "anna")
BERT = Row("b", 12, 1500, "bert")
CARL = Row("c", 13, 1600, "carl")


def put(*rows: Row) -> lua.Command:
    """A put as the product sends it."""
    return (lua.PUT, 3, *BOARD_USERS_STATE, SOURCE, *(field for row in rows for field in row.fields_and_before()))


def page(token: str, next_token: str, *rows: Row) -> lua.Command:
    """A page as the product sends it."""
    marks = ("epoch", token, next_token, "", "", "", "", "")
    return (lua.APPLY, 3, *BOARD_USERS_STATE, *marks, *(field for row in rows for field in row.fields()))


def every_call() -> list[lua.Command]:
    """One call of each script, on a board that is ready."""
    return [
        put(BERT),
        page("token", "next", CARL),
        (lua.RANK, 3, *BOARD_USERS_STATE, SOURCE, "a"),
        (lua.SLICE_AT, 2, *BOARD_STATE, SOURCE, 2, 0),
        (lua.SLICE_AFTER, 2, *BOARD_STATE, SOURCE, 2, 1600, "A"),
        (lua.STORE_OBJECTS, 1, "user:a", "00c0ffee", 11, "{}", 60_000),
        (lua.BEGIN, 3, *BOARD_USERS_STATE, "epoch", "second", "token", SOURCE, "700", 0, 1),
    ]


def prepare(scripts: Scripts) -> None:
    """Anna's board, whose next page must present `token`."""
    scripts.start(ANNA)
    scripts.apply(next_token="token")


def without_lag(replies: list[Any]) -> list[Any]:
    """The replies with the lag, which no two calls share, taken out."""
    places = [1 if len(reply) == 6 and isinstance(reply[2], bytes) else 2 for reply in replies]  # a put's comes first
    return [
        [*reply[:place], *reply[place + 1 :]] if reply[0] == b"ok" and len(reply) > 4 else reply
        for reply, place in zip(replies, places, strict=True)
    ]


async def test_calls_that_are_made_again_go_to_the_same_server(
    scripts: Scripts, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their scripts: a second connection could lead to another one, which has neither them nor the first's board."""
    prepare(scripts)
    scripts.client.script_flush()
    lent: list[object] = []
    lend = client.connection_pool.get_connection

    async def lend_and_note() -> object:
        lent.append(await lend())
        return lent[-1]

    monkeypatch.setattr(client.connection_pool, "get_connection", lend_and_note)
    await lua.pipeline(client, [put(BERT)])

    assert 1 == len(lent)


async def test_every_script_survives_a_flush(scripts: Scripts, client: Client) -> None:
    """Redis forgets its scripts when it restarts: the calls are made again and answer the same."""
    for script in lua.ALL:
        scripts.client.script_load(script.text)
    prepare(scripts)
    known = await lua.pipeline(client, every_call())

    prepare(scripts)
    scripts.client.script_flush()

    assert without_lag(known) == without_lag(await lua.pipeline(client, every_call()))


async def test_a_call_that_was_carried_out_is_not_made_again(scripts: Scripts, client: Client) -> None:
    """When Redis knows only some scripts, only the refused calls are repeated."""
    prepare(scripts)
    scripts.client.script_flush()
    scripts.client.script_load(lua.PUT.text)

    replies = await lua.pipeline(client, [put(BERT), page("token", "next", CARL), put(BERT)])

    assert [[b"ok", b"applied", 1, 2, b""], [b"ok", 1]] == without_lag(replies[:2])
    assert b"same" == replies[2][2]


@pytest.mark.parametrize("url", ["redis://localhost", "rediss://localhost", "unix:///socket"])
def test_a_pipeline_is_packed_as_redis_py_would(url: str) -> None:
    """Byte by byte, whatever the transport: only the loop over the arguments is another."""
    connection = redis_store.connect(url).connection_pool.make_connection()
    commands = [("SET", "key", b"\xff\x00", 12, 1.5), ("GET", ""), ("CONFIG GET", "save"), ("ECHO", "é" * 10_000)]

    assert b"".join(redis.asyncio.Connection().pack_commands(commands)) == b"".join(connection.pack_commands(commands))


async def test_the_state_is_read_at_one_instant(scripts: Scripts, client: Client) -> None:
    """No user is created between the size of the board and that of the users hash: all is asked in one MULTI."""
    prepare(scripts)
    with scripts.client.monitor() as monitor:
        await Mirror(client).state()
        seen = list(until_time(monitor))

    address = seen[-1]["client_port"], seen[-1]["client_address"]
    own = [each["command"].split()[0] for each in seen if (each["client_port"], each["client_address"]) == address]
    assert ["MULTI", "HGETALL", "ZCARD", "HLEN", "EXISTS", "TIME"] == own[own.index("MULTI") :]


def until_time(monitor: redis.client.Monitor) -> Iterator[dict[str, Any]]:
    """What Redis is asked, up to the first TIME."""
    for seen in monitor.listen():
        yield seen
        if seen["command"] == "TIME":
            return


async def test_pages_in_one_pipeline_follow_each_other(scripts: Scripts, client: Client) -> None:
    """Each presents the token of the one before it, with or without the scripts known."""
    for _ in range(2):
        prepare(scripts)

        assert [[b"ok", 1], [b"ok", 1], [b"ok", 1]] == await lua.pipeline(
            client, [page("token", "1", ANNA._replace(version=20)), page("1", "2", BERT), page("2", "3", CARL)]
        )

        scripts.client.script_flush()


async def test_pages_sent_twice_change_nothing_the_second_time(scripts: Scripts, client: Client) -> None:
    """A whole pipeline repeated after a lost answer is refused from its first page on."""
    prepare(scripts)
    pages = [page("token", "1", BERT), page("1", "2", CARL)]
    await lua.pipeline(client, pages)

    with scripts.unchanged():
        assert [[b"token"], [b"token"]] == await lua.pipeline(client, pages)


async def test_puts_out_of_order_leave_the_newest(scripts: Scripts, client: Client) -> None:
    """Versions of one user in any order, some of them twice: the newest stands."""
    prepare(scripts)
    versions = [Row("b", version, 1500 + version, "bert") for version in (14, 12, 19, 13, 19, 12)]

    replies = await lua.pipeline(client, [put(row) for row in versions])

    assert [b"applied", b"newer", b"applied", b"newer", b"same", b"newer"] == [reply[2] for reply in replies]
    assert ("bert", "b", 1519) == scripts.contents().board[0]


async def test_an_error_among_the_replies_is_raised_after_all_were_carried_out(
    scripts: Scripts, client: Client
) -> None:
    """A call that breaks its contract is a defect of ours, and does not take its neighbours with it."""
    prepare(scripts)

    with pytest.raises(StoreBug, match="BADARG rank"):
        await lua.pipeline(client, [put(BERT), (lua.RANK, 3, *BOARD_USERS_STATE, SOURCE), put(CARL)])

    assert 3 == len(scripts.contents().board)


async def test_a_full_redis_is_unavailable_and_keeps_what_it_has(scripts: Scripts, client: Client) -> None:
    """Out of memory is the operator's trouble, not a defect: the write stays pending, and no row is half there."""
    prepare(scripts)
    await lua.pipeline(client, [put(BERT)])
    try:
        scripts.client.config_set("maxmemory", 1)
    except ResponseError:
        pytest.skip("this Redis does not let its configuration be changed")
    try:
        with scripts.unchanged(), pytest.raises(Unavailable):
            await lua.pipeline(client, [put(CARL, ANNA._replace(version=20))])
    finally:
        scripts.client.config_set("maxmemory", 0)
