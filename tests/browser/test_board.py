"""The board shows what the service does, and moves with it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.api.serving import Service

from .visit import NARROW, Visit, rated

Visiting = Callable[..., Visit]

TOP = 50
MOVES = "row => row.getAnimations().some(each => each.effect.getKeyframes().some(frame => 'transform' in frame))"


def page(service: Service, limit: int) -> list[dict[str, object]]:
    """The first rows of the board."""
    items: list[dict[str, object]] = service.get(f"/leaderboard?limit={limit}").json()["items"]
    return items


def test_it_shows_the_top_and_more_of_it_when_asked(visit: Visiting, crowd: Service) -> None:
    """Names, ranks and ratings are the service's, in its order; the console has nothing to say."""
    tab = visit()
    tab.open()
    shown = page(crowd, 2 * TOP)
    assert [row["id"] for row in shown[:TOP]] == tab.ids()

    tab.page.get_by_role("button", name="Show more").click()
    expect(tab.page.locator("#rows tr")).to_have_count(2 * TOP)

    assert [row["id"] for row in shown] == tab.ids()
    assert [f"{row['rank']}{row['username']}{row['rating']:,}" for row in shown] == [
        text.replace("\n", "").replace("\t", "") for text in tab.page.locator("#rows tr").all_text_contents()
    ]
    expect(tab.page.locator("#summary")).to_have_text(f"{crowd.count()} players, ranked live")
    assert [] == tab.complaints()


def test_a_write_is_seen_within_a_second(visit: Visiting, crowd: Service) -> None:
    """The very row that was at the bottom climbs, and tells by how much."""
    tab = visit()
    tab.open()
    expect(tab.page.locator("#health-word")).to_have_text("Live")
    *_, last = page(crowd, 20)
    row = tab.row(str(last["id"]))
    row.evaluate("row => { row.known = true }")

    with rated(crowd, last, 4990):
        begun = time.monotonic()
        expect(tab.page.locator("#rows tr").first).to_have_attribute("data-id", str(last["id"]))

        assert 1 > time.monotonic() - begun
        assert row.evaluate("row => row.known")
        expect(row.locator(".change")).to_have_text(f"▲ {4990 - int(str(last['rating'])):,}")
        expect(tab.page.locator("#leader")).to_have_text(f"{last['username']} leads now with 4990.")
        tab.picture("a-change")


def test_rows_travel_unless_the_visitor_wants_them_still(visit: Visiting, crowd: Service) -> None:
    """`prefers-reduced-motion` is heeded."""
    for preference, travels in (("no-preference", True), ("reduce", False)):
        tab = visit(reduced_motion=preference)
        tab.open()
        expect(tab.page.locator("#health-word")).to_have_text("Live")
        second = page(crowd, 2)[1]
        leader = page(crowd, 1)[0]
        row = tab.row(str(second["id"]))
        # Seen at the moment when it arrives, however slow the test is.
        row.evaluate(
            f"""row => new MutationObserver((_, observer) => {{
                if (row.previousElementSibling) return;
                observer.disconnect();
                setTimeout(() => {{ row.dataset.travelled = ({MOVES})(row) }});
            }}).observe(row.parentElement, {{childList: true}})"""
        )
        with rated(crowd, second, 4995):
            expect(row).to_have_attribute("data-travelled", str(travels).lower())
        expect(tab.page.locator("#rows tr").first).to_have_attribute("data-id", str(leader["id"]))


@pytest.mark.parametrize("place", [2, 5], ids=["passed", "climbing"])
def test_a_focused_row_keeps_the_focus_while_it_moves(visit: Visiting, crowd: Service, place: int) -> None:
    """Whoever goes through the board with the keyboard is not thrown out of it by a change."""
    tab = visit()
    tab.open()
    expect(tab.page.locator("#health-word")).to_have_text("Live")
    rows = page(crowd, 6)
    tab.row(str(rows[place]["id"])).locator("a").focus()

    with rated(crowd, rows[5], 4999):
        expect(tab.page.locator("#rows tr").first).to_have_attribute("data-id", str(rows[5]["id"]))

        assert rows[place]["id"] == tab.page.evaluate("document.activeElement.closest('tr')?.dataset.id")


def test_what_was_asked_for_below_the_top_is_kept_up_to_date(visit: Visiting, crowd: Service) -> None:
    """Nobody is shown twice or lost when somebody climbs out of the part that is not pushed."""
    tab = visit()
    tab.open()
    tab.page.get_by_role("button", name="Show more").click()
    expect(tab.page.locator("#rows tr")).to_have_count(2 * TOP)
    climber = page(crowd, 80)[-1]

    with rated(crowd, climber, 4000):
        expect(tab.page.locator("#rows tr").first).to_have_attribute("data-id", str(climber["id"]))

        assert 2 * TOP - 1 <= len(tab.ids()) == len(set(tab.ids()))
        expected = [row["id"] for row in page(crowd, 2 * TOP)]
        tab.page.wait_for_function(
            "ids => [...document.querySelectorAll('#rows tr')].map(row => row.dataset.id).join() === ids",
            arg=",".join(map(str, expected)),
        )


def test_a_thousand_rows_that_move_animate_what_is_in_sight_alone(visit: Visiting) -> None:
    """And by transform and opacity alone, which need neither style nor layout; a medal that many would share is none."""
    tab = visit()
    rows = [
        {"position": place, "rank": 1, "id": f"u{place}", "username": f"u{place}", "rating": 2000}
        for place in range(1, 101)
    ]
    rows += [{**rows[0], "position": place, "rank": place, "id": f"u{place}", "username": f"u{place}", "rating": 1999}
             for place in range(101, 1001)]  # fmt: skip
    first = {"items": rows, "total": len(rows), "next_cursor": None}
    tab.page.route("**/leaderboard/stream?*", lambda route: route.abort())
    tab.answer(r"/leaderboard\?limit=50", first, headers={"X-Rank-Source": "redis", "X-Mirror-Lag-Ms": "1"})
    tab.open()
    expect(tab.page.locator("#rows tr")).to_have_count(len(rows))
    assert 0 == tab.page.locator("#rows tr[data-medal]").count()

    turned = [
        {**row, "position": place, "rank": place, "rating": 3000 - place} for place, row in enumerate(rows[::-1], 1)
    ]
    tab.page.evaluate(
        """() => new MutationObserver((_, observer) => { observer.disconnect(); setTimeout(() => {
            window.moved = document.getAnimations().flatMap(each => [each.effect.getKeyframes()]
                .flat().flatMap(frame => Object.keys(frame)).concat(each.constructor.name));
            window.count = document.getAnimations().length;
        }) }).observe(document.getElementById("rows"), {childList: true})"""
    )
    tab.answer(r"/leaderboard\?limit=50", {**first, "items": turned}, headers={"X-Rank-Source": "redis"})
    tab.page.wait_for_function("() => window.moved")

    animated = set(tab.page.evaluate("window.moved")) - {"offset", "computedOffset", "easing", "composite"}
    assert {"Animation", "CSSAnimation"} >= {name for name in animated if name[0].isupper()}
    assert {"transform", "opacity"} == {name for name in animated if name[0].islower()}
    assert 100 > tab.page.evaluate("window.count")
    assert ["1", "2", "3"] == tab.page.locator("#rows tr[data-medal]").evaluate_all(
        "all => all.map(e => e.dataset.medal)"
    )


VISIBLE = """window.isSeen = false;
for (const [name, value] of [["visibilityState", () => window.isSeen ? "visible" : "hidden"], ["hidden", () => !window.isSeen]])
    Object.defineProperty(document, name, {get: value});
window.look = (isSeen) => { window.isSeen = isSeen; document.dispatchEvent(new Event("visibilitychange")); };"""


def test_tabs_that_are_not_seen_hold_no_stream(visit: Visiting, crowd: Service) -> None:
    """A browser has six connections to a host: six tabs in the background would leave none."""
    tab = visit()
    tab.page.context.add_init_script(VISIBLE)
    pages = [tab.page, *(tab.page.context.new_page() for _ in range(7))]
    for page_ in pages:
        page_.goto(tab.base)
    assert 200 == pages[-1].evaluate(
        "() => fetch('/health/live', {signal: AbortSignal.timeout(3000)}).then(answer => answer.status)"
    )
    assert not [url for url in tab.asked if "/stream" in url]

    pages[0].evaluate("look(true)")
    expect(pages[0].locator("#health-word")).to_have_text("Live")
    for leave, back in (
        ("document.dispatchEvent(new Event('freeze'))", "document.dispatchEvent(new Event('resume'))"),
        ("dispatchEvent(new Event('pagehide'))", "dispatchEvent(new Event('pageshow'))"),
        ("look(false)", ""),
    ):
        with pages[0].expect_event("requestfailed", lambda request: "/leaderboard/stream" in request.url):
            pages[0].evaluate(leave)
        if back:
            with pages[0].expect_event("response", lambda answer: "/leaderboard/stream" in answer.url):
                pages[0].evaluate(back)
    first, second = page(crowd, 2)
    with rated(crowd, second, 4998):
        pages[0].evaluate("look(true)")
        expect(pages[0].locator("#rows tr").first).to_have_attribute("data-id", str(second["id"]))
    assert first["id"] != second["id"]


def test_an_empty_ladder_says_how_to_begin(visit: Visiting) -> None:
    """Instead of an empty table."""
    tab = visit(size=NARROW)
    empty = {"items": [], "total": 0, "next_cursor": None}
    tab.answer(r"/leaderboard\?", empty, headers={"X-Rank-Source": "redis"})
    tab.push(empty)
    tab.answer(
        r"/ratings/distribution",
        {"total": 0, "buckets": [], "quantiles": {"p10": None, "p50": None, "p90": None, "p99": None}},
    )
    tab.open()

    expect(tab.page.locator("#empty")).to_be_visible()
    expect(tab.page.locator("#empty")).to_contain_text("There are no players yet.")
    expect(tab.page.locator("#empty code")).to_contain_text("curl")
    expect(tab.page.locator("table").first).to_be_hidden()
    expect(tab.page.locator("#distribution-words")).to_have_text("There are no ratings yet.")
    tab.picture("empty")


def test_the_theme_is_the_systems_until_another_is_chosen(visit: Visiting) -> None:
    """The choice outlives the visit; choosing what the system says is no choice."""
    tab = visit(color_scheme="light")
    tab.open()
    toggle = tab.page.get_by_role("button", name="Dark theme")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = tab.page.evaluate(paper)
    expect(toggle).to_have_attribute("aria-pressed", "false")

    toggle.click()
    dark = tab.page.evaluate(paper)
    tab.open()

    expect(toggle).to_have_attribute("aria-pressed", "true")
    assert (light, dark) != (dark, light)
    assert dark == tab.page.evaluate(paper)
    toggle.click()
    assert light == tab.page.evaluate(paper)
    tab.page.emulate_media(color_scheme="dark")
    expect(toggle).to_have_attribute("aria-pressed", "true")
    assert dark == tab.page.evaluate(paper)
