"""Below a path: what is told to clients leads to where they see the API, if a trusted proxy or a setting says where."""

from __future__ import annotations

import ipaddress
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from service.api.client_address import ClientAddresses
from service.api.public_path import PublicPaths

from .serving import Service, free_port, serving, wait_until
from .shapes import fresh_name
from .wire import request

JSON = ("Content-Type", "application/json")
HOSTILE: dict[str, bytes] = {
    "a host": b"//evil.example",
    "a URL": b"http://evil.example",
    "a URL of a script": b"javascript:alert(1)",
    "a host behind a path": b"/a//evil.example",
    "a backslash": b"/\\evil.example",
    "steps": b"/a/../../b",
    "one step": b"/..",
    "steps in escapes": b"/%2e%2e",
    "a slash in an escape": b"/a%2fb",
    "a tab": b"/a\tb",
    "a line end in escapes": b"/a%0d%0aX-Injected:%20yes",
    "a query": b"/a?b",
    "a fragment": b"/a#b",
    "quotes": b'/a"},{"url":"http://evil.example',
    "markup": b"/<script>",
    "not ASCII": b"/\xc3\xa9",
    "two paths": b"/a, /b",
    "no slash": b"ladder",
    "empty": b"",
    "very long": b"/" + b"a" * 201,
    "very long and nearly good": b"/a" * 20_000 + b"?",
}


@pytest.fixture(scope="module")
def below(stores: Any) -> Iterator[Service]:
    """A service that trusts its own machine as a proxy, and is below /base unless that says otherwise."""
    name = stores.create(stores.template)
    env = {"TRUSTED_PROXIES": "127.0.0.0/8", "ROOT_PATH": "/base/"}
    with stores.empty_redis(), serving(stores.url(name), stores.redis_url, env=env) as running:
        wait_until(running.is_mirrored)
        yield running
    stores.drop(name)


def told(service: Service, *prefixes: bytes) -> tuple[str, str, str]:
    """What a creation, the redirect to the docs, and the description say with these lines of the header."""
    lines = [("X-Forwarded-Prefix", prefix) for prefix in prefixes]
    body = b'{"id":"%b","username":"%b"}' % ((fresh_name("below").encode(),) * 2)
    created = service.raw(request("POST", "/users", [JSON, *lines], body))
    redirect = service.raw(request("GET", "/docs/?a=1", lines))
    description: Any = service.raw(request("GET", "/openapi.json", lines)).json()
    assert (201, 308) == (created.status, redirect.status)
    assert created.headers["location"].endswith(f"/users/{created.json()['id']}")
    (server,) = description["servers"]
    return created.headers["location"].rpartition("/users/")[0], redirect.headers["location"], server["url"]


@pytest.mark.parametrize("prefix", ["/ladder", "/ladder/", "/a/b-c/d.e_f~1"])
def test_a_trusted_proxy_says_where_clients_see_the_api(below: Service, prefix: str) -> None:
    path = prefix.rstrip("/")

    assert (path, f"{path}/docs?a=1", path) == told(below, prefix.encode())


def test_without_a_header_the_setting_holds(below: Service) -> None:
    """Until a proxy says that there is none."""
    assert ("/base", "/base/docs?a=1", "/base") == told(below)
    assert ("", "../docs?a=1", "/") == told(below, b"/")


@pytest.mark.parametrize("prefix", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_path_is_ignored(below: Service, prefix: bytes) -> None:
    """A proxy that sets no header of its own passes on the client's."""
    assert ("/base", "/base/docs?a=1", "/base") == told(below, prefix)


def test_two_headers_are_ignored(below: Service) -> None:
    assert ("/base", "/base/docs?a=1", "/base") == told(below, b"/a", b"/a")


def test_a_description_has_a_tag_for_each_path(below: Service) -> None:
    """One that holds elsewhere is not taken for it; the same path has the same one."""
    tags = {}
    for prefix in ("/a", "/b", "/a/"):
        answer = below.get("/openapi.json", X_Forwarded_Prefix=prefix)
        tags[prefix] = answer.headers["etag"]
        again = below.get("/openapi.json", X_Forwarded_Prefix=prefix, If_None_Match=answer.headers["etag"])
        assert 304 == again.status_code

    assert tags["/a"] == tags["/a/"] != tags["/b"]
    assert 200 == below.get("/openapi.json", X_Forwarded_Prefix="/b", If_None_Match=tags["/a"]).status_code


@pytest.mark.parametrize(
    ("peer", "expected"), [("10.1.2.3", "/a"), ("::ffff:10.1.2.3", "/a"), ("192.0.2.1", "/base"), ("", "/base")]
)
def test_only_a_peer_in_the_networks_is_trusted(peer: str, expected: str) -> None:
    """However its socket spells the address; a socket without an address is no proxy's."""
    clients = ClientAddresses([ipaddress.ip_network("10.0.0.0/8")])
    scope = {"client": (peer, "1") if peer else None, "headers": [(b"x-forwarded-prefix", b"/a")]}

    assert expected == PublicPaths(clients, "/base")(scope)


@pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx")
def test_nginx_serves_everything_below_a_path(below: Service, tmp_path: Path) -> None:
    """As docs/operations.md has it: every link that is followed stays below the path."""
    port = free_port()
    folders = "".join(f"{kind}_temp_path {tmp_path};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/error; daemon off; events {{}}\n"
        f"http {{ access_log off; {folders} server {{ listen 127.0.0.1:{port}; location /ladder/ {{\n"
        f"proxy_pass http://127.0.0.1:{below.settings.port}/; proxy_set_header Host $host;\n"
        "proxy_set_header X-Forwarded-Prefix /ladder; } } }"
    )
    with subprocess.Popen(["nginx", "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error")]) as nginx:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}/ladder", trust_env=False) as client:
                wait_until(lambda: _answers(client))
                created = client.post("/users", json={"username": fresh_name("nginx")})
                assert created.headers["location"].startswith("/ladder/users/")
                assert created.json() == client.get(urljoin(str(created.url), created.headers["location"])).json()
                docs = client.get("/docs/?a=1", follow_redirects=True)
                assert (200, f"http://127.0.0.1:{port}/ladder/docs?a=1") == (docs.status_code, str(docs.url))
                assert [{"url": "/ladder"}] == client.get("/openapi.json").json()["servers"]
        finally:
            nginx.send_signal(signal.SIGTERM)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health/live").status_code == 200
    except httpx.TransportError:
        return False
