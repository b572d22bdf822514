"""Whatever a name says, it is shown and never obeyed; and every combination of theme and width can be used by all."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.api.serving import Service

from .visit import NARROW, WIDE, Visit

Visiting = Callable[..., Visit]

NAMES = [
    "__proto__",
    "constructor",
    "...",
    "-.-",
    "toString",
    "0x1F.e4",
    "javascript.alert-1-",
    "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW",
]
MARKUP = "<img src=x onerror=\"console.error('obeyed')\"><script>console.error('obeyed')</script>"
SERIOUS = ("serious", "critical")


def test_every_name_of_the_alphabet_is_shown_as_it_is(visit: Visiting, crowd: Service) -> None:
    """Also those that mean something to a programming language; each row leads to its card."""
    for place, name in enumerate(NAMES):
        crowd.created(name, id=f"{name}:{place}" if place % 2 else name, rating=4800 + place)
    tab = visit(size=NARROW)
    tab.open()
    links = tab.page.locator("#rows .player a")
    expect(links.first).to_have_text(NAMES[-1])

    assert [*reversed(NAMES)] == links.all_text_contents()[: len(NAMES)]
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for name in NAMES[:3]:
        links.get_by_text(name, exact=True).click()
        expect(tab.page.locator("#card-name")).to_have_text(name)
        tab.page.keyboard.press("Escape")
    assert [] == tab.complaints("404.*Not Found")


def test_an_answer_that_was_tampered_with_brings_no_markup_in(visit: Visiting) -> None:
    """Neither as a name nor as an id, a rank or a rating, on the board, in the search, on a card."""
    tab = visit()
    row = {"position": MARKUP, "rank": MARKUP, "id": f"x\"'>{MARKUP}", "username": MARKUP, "rating": MARKUP}
    page = {"items": [row], "total": 1, "next_cursor": MARKUP}
    tab.push(page)
    tab.answer(r"/leaderboard\?", page)
    tab.answer(r"/users/search", {"items": [row]})
    tab.answer(r"/users/x/rank", {**row, "id": "x", "total": MARKUP, "percentile": MARKUP})
    tab.answer(r"/users/x/neighbors", {"items": [row, {**row, "id": "x"}]})
    tab.answer(r"/users/x/history", {"id": "x", "items": [{"day": MARKUP, "rating": MARKUP, "rank": 1}] * 3})
    tab.answer(
        r"/ratings/distribution",
        {
            "total": MARKUP,
            "buckets": [{"from": MARKUP, "to": MARKUP, "users": MARKUP}],
            "quantiles": {"p10": MARKUP, "p50": MARKUP, "p90": MARKUP, "p99": MARKUP},
        },
    )
    tab.open("#/users/x")

    expect(tab.page.locator("#rows a").first).to_have_text(MARKUP)
    expect(tab.page.locator("#card-name")).to_have_text(MARKUP)
    tab.page.locator("#find").fill("x")
    expect(tab.page.locator("[role=option] .who")).to_have_text(MARKUP)

    assert 1 == tab.page.locator("img").count()
    assert 0 == tab.page.locator("body script").count()
    assert [] == [line for line in tab.complaints() if "obeyed" in line or "Content Security Policy" in line]


@pytest.mark.parametrize(("theme", "size"), list(product(["light", "dark"], [WIDE, NARROW])))
def test_accessibility_rules_find_nothing_serious(
    visit: Visiting, crowd: Service, theme: str, size: tuple[int, int]
) -> None:
    """On the board, with the search open, with a card open; nothing is wider than the window."""
    tab = visit(size=size, color_scheme=theme, reduced_motion="reduce")
    tab.open()
    expect(tab.page.locator("#histogram svg")).to_be_visible()
    assert [] == findings(tab)
    tab.picture(f"board-{size[0]}-{theme}")
    tab.page.locator("#find").fill("b")
    expect(tab.page.get_by_role("option").first).to_be_visible()
    tab.page.keyboard.press("ArrowDown")
    assert [] == findings(tab)
    tab.picture(f"search-{size[0]}-{theme}")
    tab.page.keyboard.press("Escape")
    tab.open(f"#/users/{crowd.get('/leaderboard?limit=9').json()['items'][8]['id']}")
    expect(tab.page.locator(".around a").first).to_be_visible()
    assert [] == findings(tab)
    tab.picture(f"card-{size[0]}-{theme}")
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def findings(tab: Visit, impacts: tuple[str, ...] = SERIOUS) -> list[Any]:
    """What the rules of axe find."""
    violations = Axe().run(tab.page).response["violations"]
    return [
        (rule["id"], node["target"], node["failureSummary"])
        for rule in violations
        for node in rule["nodes"]
        if rule["impact"] in impacts
    ]


SHIFTS = """window.shift = 0;
new PerformanceObserver(list => list.getEntries().forEach(each => { window.shift += each.hadRecentInput ? 0 : each.value }))
    .observe({type: "layout-shift", buffered: true});"""
CLIPPED = """() => [...document.querySelectorAll("#card, #card *, #distribution, #histogram svg")].filter(each => {
    const {left, right} = each.getBoundingClientRect();
    return right > innerWidth || left < 0 || (each.id && each.scrollWidth > each.clientWidth + 1);
}).map(each => each.id || each.className)"""
INK = "e => [getComputedStyle(e).color, getComputedStyle(e.closest('tr')).backgroundColor]"


@pytest.mark.parametrize("size", [WIDE, NARROW, (320, 640)], ids=["wide", "narrow", "zoomed"])
def test_the_page_holds_still_and_can_be_seen_in_every_way(
    visit: Visiting, crowd: Service, size: tuple[int, int]
) -> None:
    """The widest name breaks nothing; nothing jumps; the focus is in sight; forced colours and paper show it all."""
    crowd.client.post("/users", json={"username": "W" * 31 + "X", "id": "wide", "rating": 3000})
    tab = visit(size=size, reduced_motion="reduce")
    tab.page.add_init_script(SHIFTS)
    many = {"rank": 9_876_543, "position": 9_876_543, "total": 10_000_000, "percentile": 1.23}
    tab.answer(r"/users/wide/rank", {"id": "wide", "rating": 3000, **many})
    tab.open("#/users/wide")
    expect(tab.page.locator(".around a")).to_have_count(7)
    expect(tab.page.locator("#histogram .here")).to_have_count(1)
    expect(tab.page.locator(".history")).not_to_be_empty()
    assert [] == tab.page.evaluate(CLIPPED)
    assert tab.page.evaluate("window.shift") < 0.05
    if size == WIDE:
        bottom = "document.getElementById('distribution').getBoundingClientRect().bottom <= innerHeight"
        assert tab.page.evaluate(bottom)

    for event, lies_over in (("beforeprint", False), ("afterprint", size != WIDE)):
        tab.page.evaluate(f"dispatchEvent(new Event('{event}'))")
        assert lies_over == tab.page.locator("#card").evaluate("card => card.matches(':modal')")
    tab.page.keyboard.press("Escape")
    expect(tab.page.locator("#card")).to_be_hidden()
    tab.page.locator("#rows a").nth(40).focus()
    for _ in range(38):
        tab.page.keyboard.press("Shift+Tab")
        assert tab.page.evaluate(
            "(e => document.elementFromPoint(200, e.getBoundingClientRect().top + 2)?.closest('tr') === e.closest('tr'))"
            "(document.activeElement)"
        )

    tab.page.emulate_media(forced_colors="active")
    assert all(
        ink != paper for ink, paper in tab.page.locator("#rows .rank span").evaluate_all(f"all => all.map({INK})")
    )
    tab.page.locator("#find").fill("b")
    expect(tab.page.get_by_role("option").first).to_be_visible()
    tab.page.keyboard.press("ArrowDown")
    chosen, other = (
        tab.page.get_by_role("option").nth(place).evaluate("e => getComputedStyle(e).backgroundColor")
        for place in (0, 1)
    )
    assert chosen != other
    letters = tab.page.locator(".found mark").evaluate_all("all => all.map(e => getComputedStyle(e).color)")
    assert other not in letters[1:]
    tab.page.emulate_media(forced_colors="none", media="print")
    assert [True, False, False, False] == [
        tab.page.locator(part).is_visible() for part in ("#rows", "#find", "#theme", "#more")
    ]
    assert "rgb(0, 0, 0)" == tab.page.locator("#rows a").first.evaluate("e => getComputedStyle(e).color")
