"""When the stream, Redis or the whole service is away, the page says so in plain words, and comes back by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from playwright.sync_api import Route, expect

from service import demo
from tests.api.serving import Service, free_port, serving, wait_until
from tests.servers.own_redis import OwnRedis, own_redis

from .visit import Visit, Visitors

AWAY = r"Failed to load resource|net::ERR_"


@pytest.fixture(scope="module")
def server(visitors: Visitors) -> Iterator[OwnRedis]:  # noqa: ARG001  without a browser no server is needed
    """A Redis that may go away."""
    with own_redis() as own:
        own.start()
        yield own


@pytest.fixture
def standing(fresh_database: str, server: OwnRedis) -> Iterator[Service]:
    """A service over it, with a few users."""
    demo.fill(fresh_database, 60)
    server.start()
    with serving(fresh_database, server.url) as running:
        wait_until(running.is_mirrored)
        yield running


@pytest.fixture
def tab(visitors: Visitors, standing: Service) -> Iterator[Visit]:
    """A visit to it that is live."""
    with visitors.visit(f"http://127.0.0.1:{standing.settings.port}") as visit:
        visit.open()
        expect(visit.page.locator("#health-word")).to_have_text("Live")
        yield visit


def leader(service: Service) -> str:
    """Who leads after this write, and did not before."""
    first, *_, last = service.get("/leaderboard?limit=10").json()["items"]
    assert service.put(last["id"], first["rating"] + 1).status_code == 200
    return str(last["id"])


def test_redis_goes_and_comes_back(tab: Visit, standing: Service, server: OwnRedis) -> None:
    """Meanwhile it is said that Postgres counts, and changes are seen all the same."""
    word = tab.page.locator("#health-word")
    server.kill()
    expect(word).to_have_text("Ranks counted in Postgres")
    expect(tab.page.locator("#health-detail")).to_contain_text("the ranks are exact")
    tab.picture("redis-away")
    first = leader(standing)
    expect(tab.page.locator("#rows tr").first).to_have_attribute("data-id", first)

    server.start()
    expect(word).to_have_text("Live", timeout=25_000)
    second = leader(standing)
    expect(tab.page.locator("#rows tr").first).to_have_attribute("data-id", second)


def test_the_service_is_restarted(visitors: Visitors, fresh_database: str, server: OwnRedis) -> None:
    """The board stays to be read, with the time that it is of, until it lives again."""
    demo.fill(fresh_database, 60)
    server.start()
    port = free_port()
    with visitors.visit(f"http://127.0.0.1:{port}") as tab:
        word = tab.page.locator("#health-word")
        with serving(fresh_database, server.url, port=port) as running:
            wait_until(running.is_mirrored)
            tab.open()
            expect(word).to_have_text("Live")
            shown = tab.ids()
        expect(word).to_have_text("Server unreachable")
        expect(tab.page.locator("#health-detail")).to_contain_text("What you see is from")
        assert shown == tab.ids()
        tab.picture("server-gone")

        with serving(fresh_database, server.url, port=port) as running:
            expect(word).to_have_text("Live")
            first = leader(running)
            expect(tab.page.locator("#rows tr").first).to_have_attribute("data-id", first)
            assert [] == tab.complaints(AWAY)


DOWN = {"status": "down", "postgres": {"status": "down"}, "redis": {"status": "down"}, "mirror": {"ready": False}}


def test_the_moment_of_the_board_stands_still_while_no_store_is_read(tab: Visit) -> None:
    """Though the stream stays open, and health goes on answering; nothing says "live" meanwhile."""
    clock, moment = tab.page.clock, tab.page.locator("#updated")
    clock.install()
    tab.open()
    expect(tab.page.locator("#summary")).to_contain_text("ranked live")
    begun = moment.text_content()
    clock.fast_forward(60_000)
    expect(moment).not_to_have_text(str(begun))

    tab.answer(r"/(health|leaderboard\?.*|ratings/.*)$", DOWN, status=503)
    clock.fast_forward(6_000)
    expect(tab.page.locator("#health-word")).to_have_text("No ranks right now")
    last = str(moment.text_content())
    for _ in range(3):
        with tab.page.expect_response("**/health"):
            clock.fast_forward(60_000)
    expect(moment).to_have_text(last)
    expect(tab.page.locator("#health-detail")).to_have_text(
        f"Postgres and Redis are away. What you see is from {last.removeprefix('As of ')}."
    )
    expect(tab.page.locator("#summary")).not_to_contain_text("live")


def test_without_a_stream_the_board_is_asked_for(tab: Visit, standing: Service) -> None:
    """A proxy may refuse what does not end; then every few seconds have to do, and it is said so."""
    tab.page.route("**/leaderboard/stream?*", lambda route: route.abort())
    tab.open()
    expect(tab.page.locator("#health-word")).to_have_text("Reconnecting")

    first = leader(standing)
    expect(tab.page.locator("#rows tr").first).to_have_attribute("data-id", first)


def test_a_stream_that_is_refused_is_tried_again(tab: Visit) -> None:
    """Though the service is well otherwise; the browser itself would not try again."""
    tries: list[Route] = []

    def refuse_twice(route: Route) -> None:
        tries.append(route)
        if len(tries) <= 2:
            route.abort()
        else:
            route.continue_()

    tab.page.route("**/leaderboard/stream?*", refuse_twice)
    # The answer to the stream of the visit before may come as late as this one begins.
    with tab.page.expect_response(lambda answer: "/leaderboard/stream" in answer.url and len(tries) > 2):
        tab.open()

    assert 3 == len(tries)


def test_who_is_refused_for_asking_too_much_waits(tab: Visit) -> None:
    """As long as the service says, with everything on the page; then it is asked again, and answers."""
    asked: list[float] = []
    refusals = 2

    def refuse(route: Route) -> None:
        asked.append(time.monotonic())
        if len(asked) <= refusals:
            route.fulfill(status=429, headers={"Retry-After": "1"}, json={})
        else:
            route.continue_()

    tab.page.route("**/users/search?*", refuse)
    tab.page.locator("#find").fill("b")
    expect(tab.page.locator("#health-word")).to_have_text("Waiting a moment")
    expect(tab.page.get_by_role("option").first).to_be_visible()

    assert refusals + 1 == len(asked)
    assert all(later - earlier >= 1 for earlier, later in pairwise(asked))
    expect(tab.page.locator("#health-word")).to_have_text("Live")


def test_old_data_is_called_old(tab: Visit) -> None:
    """By the header of an answer, before health has heard of it."""
    page = {"items": [], "total": 0, "next_cursor": None}
    stale = {"X-Rank-Source": "redis", "X-Mirror-Lag-Ms": "7000", "X-Data-Stale": "true"}
    tab.answer(r"/users/search", page, headers=stale)
    tab.answer(r"/leaderboard\?limit=1$", page, headers=stale)
    tab.page.locator("#find").fill("b")

    expect(tab.page.locator("#health-word")).to_have_text("Data may be old")
