"""Players are found, and their cards tell where they stand."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.api.serving import Service

from .visit import NARROW, WIDE, Visit, rated

Visiting = Callable[..., Visit]

TODAY = datetime.now(UTC).date()
DAYS = [
    {"day": str(TODAY - timedelta(days=ago)), "rating": 1400 + 5 * ago, "rank": 90 + ago, "position": 90 + ago}
    for ago in (45, 20, 12, 11, 3)
]


def middle(service: Service) -> dict[str, Any]:
    """Somebody far from both ends of the board."""
    row: dict[str, Any] = service.get("/leaderboard?offset=120&limit=1").json()["items"][0]
    return row


def page_rows(service: Service) -> list[dict[str, Any]]:
    """The first three rows."""
    rows: list[dict[str, Any]] = service.get("/leaderboard?limit=3").json()["items"]
    return rows


def test_a_search_without_an_answer_says_why_within_two_seconds(visit: Visiting) -> None:
    """First that it is on its way, then that it takes long, then which store is away; and it goes on by itself."""
    tab = visit()
    tab.open()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    tab.page.route("**/users/search?*", hold)
    note = tab.page.locator("#found-note")
    tab.page.locator("#find").fill("b")

    expect(note).to_have_text("Searching…", timeout=1000)
    expect(note).to_have_text("No answer yet. Still searching.", timeout=2000)
    health = {"status": "degraded", "postgres": {"status": "down"}, "redis": {"status": "up"}, "mirror": {}}
    tab.answer(r"/health$", health)
    held[0].fulfill(status=503, headers={"Retry-After": "0"}, json={})
    expect(note).to_have_text("The search needs Postgres, which is away. Still trying.")
    tab.page.unroute("**/users/search?*")
    expect(tab.page.get_by_role("option").first).to_be_visible()


def test_a_search_asks_once_for_what_is_typed_at_once(visit: Visiting, crowd: Service) -> None:
    """And shows whose names begin with it, regardless of case."""
    tab = visit()
    tab.open()
    name = str(middle(crowd)["username"])
    prefix = name[:4].swapcase()

    tab.page.locator("#find").press_sequentially(prefix, delay=15)
    found = crowd.get(f"/users/search?limit=8&username={prefix}").json()["items"]
    expect(tab.page.get_by_role("option")).to_have_count(len(found))

    assert [user["username"] for user in found] == tab.page.locator("[role=option] .who").all_inner_texts()
    assert 1 == sum("/users/search" in url for url in tab.asked)
    tab.page.locator("#find").fill("%_\\")
    expect(tab.page.locator("#found-note")).to_have_text("No name begins with “%_\\”.")
    assert [] == tab.complaints()


def test_a_late_answer_to_an_earlier_search_is_not_shown(visit: Visiting, crowd: Service) -> None:
    """The request itself is given up."""
    tab = visit()
    tab.open()
    name = str(middle(crowd)["username"])
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    tab.page.route("**/users/search?limit=8&username=b", hold)
    given_up: list[str] = []
    tab.page.on("requestfailed", lambda request: given_up.append(request.url))

    tab.page.locator("#find").fill("b")
    tab.page.wait_for_event("request", lambda request: request.url.endswith("username=b"))
    tab.page.locator("#find").fill(name)
    expect(tab.page.locator("[role=option] .who").first).to_have_text(name)

    assert [f"{tab.base}/users/search?limit=8&username=b"] == given_up
    assert 1 == len(held)


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_keyboard_alone_is_enough(visit: Visiting, crowd: Service, size: tuple[int, int]) -> None:
    """Skip, search, choose, open, walk to a neighbour, close: the focus is always where it belongs."""
    tab = visit(size=size)
    tab.open()
    keys, focused = tab.page.keyboard, "document.activeElement"
    keys.press("Tab")
    assert "Skip to the leaderboard" == tab.page.evaluate(f"{focused}.textContent")
    keys.press("Enter")
    keys.press("Tab")
    assert tab.ids()[0] == tab.page.evaluate(f"{focused}.closest('tr').dataset.id")

    keys.press("/")
    wanted = middle(crowd)
    keys.type(str(wanted["username"]))
    expect(tab.page.get_by_role("option").first).to_be_visible()
    keys.press("ArrowDown")
    chosen = tab.page.locator("[role=option][aria-selected=true]")
    expect(tab.page.locator("#find")).to_have_attribute("aria-activedescendant", str(chosen.get_attribute("id")))
    keys.press("Enter")

    name = tab.page.locator("#card-name")
    expect(name).to_have_text(str(wanted["username"]))
    expect(name).to_be_focused()
    expect(tab.page.locator(".around a")).to_have_count(7)
    keys.press("Tab")
    keys.press("Tab")
    while not tab.page.evaluate(f"{focused}.matches('.around a')"):
        keys.press("Tab")
    neighbor = str(tab.page.evaluate(f"{focused}.textContent"))
    keys.press("Enter")
    expect(name).to_have_text(neighbor)
    expect(name).to_be_focused()
    keys.press("Escape")
    expect(tab.page.locator("#card")).to_be_hidden()
    expect(tab.page.locator("#find")).to_be_focused()
    assert "" == tab.page.evaluate("location.hash")


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_a_card_has_an_address_and_tells_where_a_player_stands(
    visit: Visiting, crowd: Service, size: tuple[int, int]
) -> None:
    """Rank, position, percentile, neighbours; and the histogram marks the place."""
    somebody = middle(crowd)
    standing = crowd.get(f"/users/{somebody['id']}/rank").json()
    around = crowd.get(f"/users/{somebody['id']}/neighbors?radius=3").json()["items"]
    tab = visit(size=size)
    tab.answer(r"/history\?days=30", {"id": somebody["id"], "items": DAYS})
    tab.open(f"#/users/{somebody['id']}")
    card = tab.page.get_by_role("dialog", name=str(somebody["username"]))

    expect(card.locator(".big")).to_have_text(f"Rank {standing['rank']} of {standing['total']}")
    assert [f"{standing['rating']:,}", f"{standing['position']}", f"{standing['percentile']:g} %"] == card.locator(
        ".facts dd"
    ).all_inner_texts()
    assert [row["username"] for row in around] == card.locator(".around a").all_inner_texts()
    expect(card.locator(".history svg .point")).to_have_count(len(DAYS) + 1)
    expect(card.locator(".history .chart")).to_have_attribute(
        "aria-label",
        re.compile(rf"^Rating by days\. \w+ \d+ since .+, from 1,625 to {standing['rating']:,}; best 1,625 on .+\.$"),
    )
    expect(tab.page.locator("#histogram .here")).to_have_count(1)
    expect(tab.page.locator("#distribution-words")).to_contain_text(f"{somebody['username']} has")
    assert f"{somebody['username']}, rank {standing['rank']} · Ladder" == tab.page.title()
    assert [] == tab.complaints()
    tab.picture(f"card-{size[0]}")
    card.get_by_role("button", name="Close").click()
    expect(card).to_be_hidden()
    expect(tab.page.locator("#histogram .here")).to_have_count(0)


def test_back_opens_no_card_that_was_closed(visit: Visiting, crowd: Service) -> None:
    """Neither one that was opened here and left for another one, nor one whose address was followed from elsewhere."""
    tab = visit()
    tab.open()
    heading, rows = tab.page.locator("#card-name"), page_rows(crowd)
    tab.row(rows[1]["id"]).locator("a").click()
    expect(heading).to_have_text(rows[1]["username"])
    tab.page.locator(".around a").first.click()
    expect(heading).to_have_text(rows[0]["username"])
    tab.page.go_back()
    expect(heading).to_have_text(rows[1]["username"])
    tab.page.keyboard.press("Escape")
    expect(heading).to_be_hidden()
    assert tab.page.url == f"{tab.base}/"

    tab.open(f"#/users/{rows[2]['id']}")
    tab.page.locator(".around a").first.click()
    expect(heading).to_have_text(rows[0]["username"])
    tab.page.get_by_role("button", name="Close").click()
    expect(heading).to_be_hidden()
    tab.page.go_back()
    expect(heading).to_be_hidden()


def test_a_card_follows_its_player(visit: Visiting, crowd: Service) -> None:
    """While it is open, whatever happens to them is shown."""
    somebody = middle(crowd)
    tab = visit()
    tab.open(f"#/users/{somebody['id']}")
    expect(tab.page.locator(".facts dd").first).to_have_text(f"{somebody['rating']:,}")

    with rated(crowd, somebody, 3210):
        expect(tab.page.locator(".facts dd").first).to_have_text("3,210")

        expect(tab.page.locator(".big")).to_have_text(f"Rank 1 of {crowd.count()}")
        assert tab.row(somebody["id"]).evaluate("row => row.classList.contains('open')")


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, {}), (200, {"id": "x", "items": []}), (200, {"id": "x", "items": [{**DAYS[0], "day": str(TODAY)}]})],
    ids=["no route", "no days", "today alone"],
)
def test_without_two_days_of_history_no_line_is_drawn(
    visit: Visiting, crowd: Service, status: int, body: dict[str, Any]
) -> None:
    """It is said instead."""
    tab = visit()
    tab.answer(r"/history\?days=30", body, status=status)
    tab.open(f"#/users/{middle(crowd)['id']}")

    expect(tab.page.locator(".history")).to_have_text(
        "No history of the last 30 days yet: it takes two days to draw a line."
    )
    expect(tab.page.locator(".history svg")).to_have_count(0)


def test_a_history_that_gets_no_answer_is_asked_for_again(visit: Visiting, crowd: Service) -> None:
    """It is not said that there is none."""
    tab, somebody, line = visit(), middle(crowd), r"/history\?days=30"
    tab.answer(line, {}, status=400)
    tab.open(f"#/users/{somebody['id']}")
    expect(tab.page.locator(".history")).to_have_text("No answer yet. Trying again.")

    tab.answer(line, {"id": somebody["id"], "items": DAYS})
    (first,) = crowd.get("/leaderboard?limit=1").json()["items"]
    with rated(crowd, first, first["rating"] + 1):
        expect(tab.page.locator(".history svg")).to_have_count(1)


def test_a_card_of_nobody_says_so(visit: Visiting) -> None:
    """And an address that can be nobody's opens none."""
    tab = visit()
    tab.open("#/users/nobody")
    expect(tab.page.locator(".trouble")).to_have_text("There is no such player.")
    tab.open("#/users/%3Cimg%20src=x%3E")
    expect(tab.page.locator("#card")).to_be_hidden()


def test_the_histogram_says_in_words_and_numbers_what_it_draws(visit: Visiting, crowd: Service) -> None:
    """Each bar is a bucket, and the table beside it has them all."""
    answer = crowd.get("/ratings/distribution?width=50").json()
    used = [bucket for bucket in answer["buckets"] if bucket["users"]]
    tab = visit()
    tab.open()
    expect(tab.page.locator("#histogram svg")).to_be_visible()
    drawn = tab.page.locator("#histogram .bar").evaluate_all(
        "bars => bars.map(bar => +bar.getAttribute('height')).filter(height => height)"
    )
    tab.page.locator("#distribution-table summary").click()
    expect(tab.page.locator("#distribution-table tbody tr").first).to_be_visible()
    table = {
        head: int(users.replace(",", ""))
        for head, users in tab.page.locator("#distribution-table tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        )
    }

    most = max(bucket["users"] for bucket in used)
    assert [bucket["users"] / most for bucket in used] == pytest.approx([each / max(drawn) for each in drawn], abs=0.02)
    assert {f"{bucket['from']} to {bucket['to']}": bucket["users"] for bucket in used} == {
        head: users for head, users in table.items() if users
    }
    expect(tab.page.locator("#distribution-words")).to_contain_text(f"Half have {answer['quantiles']['p50']:,} or less")
