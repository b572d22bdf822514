"""The page of the API: it shows every operation, and sends nothing that was not typed or asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.api.serving import Service

from .test_hostile import findings
from .visit import NARROW, WIDE, Visit

Visiting = Callable[..., Visit]


def opened(tab: Visit, operation: str) -> None:
    """Open the page at an operation."""
    tab.page.goto(f"{tab.base}/docs#{operation}")
    expect(tab.page.locator(f"#{operation} form")).to_be_visible()


def test_what_changes_data_is_asked_about_and_an_example_is_no_value(visit: Visiting, crowd: Service) -> None:
    """An untouched form sends nothing; a deletion is shown as it would be sent, and Cancel has the focus."""
    crowd.post({"username": "Ada.Docs", "id": "ada"})
    tab = visit()
    opened(tab, "delete_user")
    form, keys = tab.page.locator("#delete_user form"), tab.page.keyboard
    sent: list[str] = []
    tab.page.on("request", lambda request: sent.append(f"{request.method} {request.url}"))

    form.get_by_role("button", name="Send").click()
    assert tab.page.evaluate("document.activeElement.id") == "delete_user-id"
    expect(form.locator("input:invalid")).to_have_count(1)
    keys.type("ada")
    expect(form.locator(".curl")).to_have_text(f"curl -X DELETE '{tab.base}/users/ada'")
    keys.press("Enter")
    dialog = tab.page.get_by_role("dialog")
    expect(dialog.locator("pre")).to_have_text("DELETE /users/ada")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    keys.press("Enter")
    expect(form.get_by_text("Nothing was sent.")).to_be_visible()
    assert [] == sent
    assert 200 == crowd.get("/users/ada").status_code

    keys.press("Enter")
    dialog.get_by_role("button", name="Send DELETE").click()
    expect(form.get_by_text("DELETE /users/ada: 204")).to_be_visible()
    assert 404 == crowd.get("/users/ada").status_code

    opened(tab, "create_user")
    tab.page.locator("#create_user form").get_by_role("button", name="Send").click()
    expect(tab.page.locator("#create_user-body:invalid")).to_be_focused()
    expect(tab.page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize(("theme", "size"), [("light", WIDE), ("dark", NARROW)])
def test_every_operation_is_listed_found_and_accessible(
    visit: Visiting, crowd: Service, theme: str, size: tuple[int, int]
) -> None:
    """By the list, by its own address and by the filter, which says when nothing matches; no rule of axe is broken."""
    described = crowd.get("/openapi.json").json()
    every = {operation["operationId"] for item in described["paths"].values() for operation in item.values()}
    tab = visit(size=size, color_scheme=theme)
    opened(tab, "put_rating")
    listed = tab.page.locator("nav a").evaluate_all("all => all.map(each => each.hash.slice(1))")
    assert (len(every), every) == (len(listed), set(listed))
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert [] == findings(tab, ("minor", "moderate", "serious", "critical"))
    tab.picture(f"docs-{size[0]}-{theme}")

    tab.page.locator("#search").fill("no-such-thing")
    expect(tab.page.locator("#none")).to_have_text("No match for “no-such-thing”.")
    expect(tab.page.locator("nav :is(h2, a):visible")).to_have_count(0)
    tab.page.locator("#search").fill("delete a user")
    expect(tab.page.locator("main > section > details:visible")).to_have_count(1)
    tab.page.get_by_role("link", name="Leaderboard").click()
    expect(tab.page.locator("#rows tr[data-id]").first).to_be_visible()
    assert [] == tab.complaints()
