"""A visit to the leaderboard with a real Chromium, and everything that goes wrong in it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

from tests.api.serving import Service

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 10_000
WIDE, NARROW = (1440, 900), (360, 780)


class Visit:
    """One tab in a profile of its own."""

    def __init__(self, page: Page, base: str, pictures: Path) -> None:
        self.page = page
        self.base = base
        self.asked: list[str] = []
        self._said: list[str] = []
        self._pictures = pictures
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self._said.append(f"uncaught {error}"))
        page.on("request", lambda request: self.asked.append(request.url))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._said.append(message.text)

    def open(self, fragment: str = "") -> None:
        """Open the page; at the end the board is there, or it is said why it is not."""
        self.page.goto(f"{self.base}/{fragment}")
        expect(self.page.locator("#board")).to_have_attribute("aria-busy", "false")

    def row(self, user_id: str) -> Locator:
        """The row of a user on the board."""
        return self.page.locator(f'#rows tr[data-id="{user_id}"]')

    def ids(self) -> list[str]:
        """Whom the board shows, from above."""
        ids: list[str] = self.page.locator("#rows tr").evaluate_all("rows => rows.map(row => row.dataset.id)")
        return ids

    def picture(self, name: str) -> None:
        """Keep what is to be seen."""
        self.page.screenshot(path=self._pictures / f"{name}.png")

    def complaints(self, *but: str) -> list[str]:
        """What the console was told, but for lines that match one of these patterns."""
        return [line for line in self._said if not any(re.search(pattern, line) for pattern in but)]

    def strangers(self) -> list[str]:
        """Addresses of other hosts that were asked for."""
        return [url for url in self.asked if not url.startswith((self.base + "/", "data:"))]

    def answer(self, pattern: str, body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Answer in the service's place whatever is asked for at these addresses."""
        self.page.route(re.compile(pattern), lambda route: route.fulfill(status=status, json=body, headers=headers))

    def push(self, page: Any) -> None:
        """Let the stream send this page, in the service's place, and end."""
        text = f"event: leaderboard\ndata: {json.dumps(page)}\n\n"
        self.page.route(
            re.compile("/leaderboard/stream"),
            lambda route: route.fulfill(status=200, content_type="text/event-stream", body=text),
        )


@contextlib.contextmanager
def rated(service: Service, row: Mapping[str, Any], rating: int) -> Iterator[None]:
    """Give the user of a row another rating for the block, and then theirs again."""
    assert service.put(str(row["id"]), rating).status_code == 200
    try:
        yield
    finally:
        service.put(str(row["id"]), row["rating"])


class Visitors:
    """A browser, and a way to visit a service with it."""

    def __init__(self, browser: Browser, pictures: Path) -> None:
        self._browser = browser
        self._pictures = pictures

    @contextlib.contextmanager
    def visit(self, base: str, *, size: tuple[int, int] = WIDE, **context: Any) -> Iterator[Visit]:
        """A tab in a fresh profile; `context` is Playwright's. It is closed at the end."""
        width, height = size
        made = self._browser.new_context(viewport={"width": width, "height": height}, **context)
        made.set_default_timeout(PATIENCE_MS)
        try:
            yield Visit(made.new_page(), base, self._pictures)
        finally:
            made.close()


@contextlib.contextmanager
def chromium(pictures: Path) -> Iterator[Visitors]:
    """A running Chromium; skips where there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: install Debian's package chromium, or any other on PATH")
    kept = os.environ.get("BROWSER_PICTURES")
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield Visitors(browser, Path(kept) if kept else pictures)
        finally:
            browser.close()
