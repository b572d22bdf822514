"""Links as people share them: with other sites' parameters, and with a slash too many."""

from __future__ import annotations

from urllib.parse import urljoin

import pytest

from .serving import Service
from .shapes import assert_problem, assert_request_id, fresh_name
from .wire import request

PAGES = ["/", "/docs", "/docs/docs.css", "/docs/docs.js", "/site/main.js", "/health/live", "/health/ready"]
QUERIES = [
    "fbclid=IwAR0x-y_z",
    "utm_source=a&utm_medium=b&utm_source=c",
    "limit=x",
    "=",
    "&&",
    "%zz",
    "a=%ff",
    "x=1&" * 30,
]
API = ["/openapi.json", "/metrics", "/leaderboard", "/ratings/1500", "/ratings/distribution"]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("path", PAGES)
def test_a_page_or_probe_ignores_every_query(service: Service, path: str, query: str) -> None:
    """The answer is the one without the query, also for a query that is malformed."""
    plain, shared = service.get(path, Accept_Encoding="identity"), service.raw(request("GET", f"{path}?{query}"))

    assert (200, plain.headers.get("etag")) == (shared.status, shared.headers.get("etag"))
    assert plain.content == shared.body


def test_the_state_of_the_service_ignores_every_query(service: Service) -> None:
    assert {"status", "version", "postgres", "redis", "mirror"} == set(service.get("/health?utm_source=a").json())


@pytest.mark.parametrize("path", API)
def test_the_api_refuses_the_same_parameters(service: Service, path: str) -> None:
    assert_problem(service.get(f"{path}?fbclid=1"), "validation", "fbclid")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("query", ["", "?fbclid=a%20b&x=%zz", "?a=1&a=/;:@"])
def test_docs_with_a_slash_leads_to_docs(service: Service, method: str, query: str) -> None:
    """Permanently, with the query, and below any path that a proxy adds."""
    answer = service.raw(request(method, "/docs/" + query))

    assert (308, b"") == (answer.status, answer.body)
    assert_request_id(answer.headers)
    assert f"/docs{query}" == urljoin("/docs/", answer.headers["location"])
    assert f"/ladder/docs{query}" == urljoin("/ladder/docs/", answer.headers["location"])
    assert service.get("/docs").text == service.client.get("/docs/" + query, follow_redirects=True).text


def test_a_redirect_holds_no_byte_that_a_header_may_not(service: Service) -> None:
    """What stands in the query is escaped; nothing in it becomes a header."""
    answer = service.raw(request("GET", b"/docs/?a=\xc3\xa9<%0d%0aX-Injected:%20yes>"))

    if answer.status != 400:
        assert "../docs?a=%C3%A9%3C%0d%0aX-Injected:%20yes%3E" == answer.headers["location"]
    assert "x-injected" not in answer.headers


@pytest.mark.parametrize("path", ["/docs//", "//docs/", "/docs/x/", "/docs%2F", "/leaderboard/", "/health/", "/site/"])
def test_no_other_address_has_a_second_spelling(service: Service, path: str) -> None:
    assert_problem(service.raw(request("GET", path)), "not-found")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_docs_with_a_slash_understands_reading_alone(service: Service, method: str) -> None:
    assert_problem(service.raw(request(method, "/docs/")), "method-not-allowed")


@pytest.mark.parametrize("prefix", ["/ladder", "//evil.example"])
def test_a_prefix_is_not_believed_without_trusted_proxies(service: Service, prefix: str) -> None:
    """The header is a client's own then."""
    created = service.post({"username": fresh_name()}, X_Forwarded_Prefix=prefix)

    assert f"/users/{created.json()['id']}" == created.headers["location"]
    assert "../docs" == service.get("/docs/", X_Forwarded_Prefix=prefix).headers["location"]
    assert [{"url": "/"}] == service.get("/openapi.json", X_Forwarded_Prefix=prefix).json()["servers"]
