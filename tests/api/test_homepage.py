"""The leaderboard for people: served whole, without another host, under a policy that lets nothing else run."""

from __future__ import annotations

import re

import pytest

from .serving import ROOT, Service
from .shapes import assert_problem

FILES = sorted(path.name for path in (ROOT / "service/api/site").iterdir() if path.suffix != ".html")
MEDIA_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
ELSEWHERE = re.compile(r"https?:|//[a-z0-9-]+\.[a-z]|@import|\bimport\(|\burl\(")
SVG = "http://www.w3.org/2000/svg"


def test_the_page_is_served_and_need_not_be_fetched_twice(service: Service) -> None:
    """It is asked for each time, and answered with nothing while it is the same."""
    page = service.get("/")

    assert (200, "text/html; charset=utf-8") == (page.status_code, page.headers["content-type"])
    assert "no-cache" == page.headers["cache-control"]
    again = service.get("/", if_none_match=page.headers["etag"])
    assert (304, b"", page.headers["etag"]) == (again.status_code, again.content, again.headers["etag"])
    assert 200 == service.get("/", if_none_match='"other"').status_code
    assert "" == service.client.head("/").text


def test_the_policy_allows_what_the_page_is_made_of_and_nothing_else(service: Service) -> None:
    """No script or style in the page itself, and none can make markup of a text."""
    page = service.get("/")

    policy = dict(rule.strip().partition(" ")[::2] for rule in page.headers["content-security-policy"].split(";"))
    own = {"script-src", "style-src", "connect-src", "img-src"}
    closed = {"default-src", "base-uri", "form-action", "frame-ancestors", "trusted-types"}
    assert dict.fromkeys(own, "'self'") | dict.fromkeys(closed, "'none'") == {
        rule: value for rule, value in policy.items() if rule != "require-trusted-types-for"
    }
    assert "'script'" == policy["require-trusted-types-for"]
    assert not re.search(r"<style|\bstyle=|\bon[a-z]+=|<script(?![^>]*\bsrc=)|\bhref=\"javascript:", page.text)
    assert ("nosniff", "DENY") == (page.headers["x-content-type-options"], page.headers["x-frame-options"])


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_served_without_another_host(service: Service, name: str) -> None:
    """As what it is; the policy of data is a file's too."""
    answer = service.get(f"/site/{name}")

    assert (200, MEDIA_TYPES[name.partition(".")[2]]) == (answer.status_code, answer.headers["content-type"])
    assert not ELSEWHERE.search(answer.text.replace(SVG, ""))
    assert answer.headers["content-security-policy"] == service.get("/health").headers["content-security-policy"]
    assert 304 == service.get(f"/site/{name}", if_none_match=answer.headers["etag"]).status_code


def test_the_page_names_every_file_and_what_it_names_is_there(service: Service) -> None:
    """Each module is announced, so that a browser fetches them all at once."""
    named = set(re.findall(r'(?:href|src)="site/([^"]*)"', service.get("/").text))

    assert set(FILES) == named


def test_a_file_that_is_none_is_not_found(service: Service) -> None:
    """Neither one by another name, nor one beside them."""
    for name in ("none.js", "index.html", "%2e%2e%2fhomepage.py", "Board.js"):
        assert_problem(service.get(f"/site/{name}"), "not-found")


def test_no_script_makes_markup_of_text() -> None:
    """What a browser would read as markup is nowhere written."""
    for path in (ROOT / "service/api/site").glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", path.read_text()
        )
