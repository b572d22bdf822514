"""The description is of what is served, whole, and valid; the page that shows it asks no other host for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from openapi_spec_validator import OpenAPIV31SpecValidator

import service as product
from service.api.openapi import document
from service.api.operation import REQUEST_HEADERS, RESPONSE_HEADERS
from service.api.problems import KINDS
from service.api.readers import IN_PATH
from service.app import create_app
from service.settings import Settings

from .serving import ROOT, Service
from .shapes import SLUGS

Json = dict[str, Any]


@pytest.fixture(scope="module")
def app() -> Litestar:
    """The application; nothing is opened."""
    asgi: Any = create_app(Settings(database_url="postgresql:///nowhere", redis_url="redis://nowhere"))
    while not isinstance(asgi, Litestar):
        asgi = asgi._app
    return asgi


@pytest.fixture(scope="module")
def described(app: Litestar) -> Json:
    """Its description."""
    return document(app)


def handlers(app: Litestar) -> Iterator[HTTPRouteHandler]:
    """Every handler but those of OPTIONS, which the framework adds."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            yield from (handler for handler in route.route_handlers if handler.http_methods != {"OPTIONS"})


def resolved(described: Json, value: Json) -> Json:
    """What a reference refers to."""
    for key in value["$ref"][2:].split("/") if "$ref" in value else ():
        described = described[key]
    return described if "$ref" in value else value


def operations(described: Json) -> Iterator[tuple[str, str, Json]]:
    """Path, method, operation."""
    for path, item in described["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def contents(described: Json) -> Iterator[Json]:
    """The content of every body, asked or answered, and every parameter and header, which are alike."""
    for _, _, operation in operations(described):
        answers = [resolved(described, answer) for answer in operation["responses"].values()]
        for said in (operation.get("requestBody", {}), *answers):
            yield from said.get("content", {}).values()
    yield from described["components"]["headers"].values()


def examples(content: Json) -> list[object]:
    """Its examples."""
    return [content["example"]] if "example" in content else [one["value"] for one in content["examples"].values()]


def test_the_description_is_valid(described: Json) -> None:
    """By the schema of OpenAPI 3.1, and its references lead somewhere."""
    OpenAPIV31SpecValidator(described).validate()

    assert product.__version__ == described["info"]["version"]


def test_every_route_is_described_and_nothing_else(app: Litestar, described: Json) -> None:
    """A handler without `opt["doc"]` is found here."""
    served = {
        (route.path_format, method.lower())
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method in route.methods - {"OPTIONS"}
    }
    names = {f"{{{name}}}": f"{{{router}}}" for router, (name, _) in IN_PATH.items()}
    told = {
        (re.sub(r"\{\w+\}", lambda found: names[found[0]], path), method) for path, method, _ in operations(described)
    }

    assert served == told


def test_every_operation_has_a_name_of_its_own_and_a_sentence(described: Json) -> None:
    """So has every parameter."""
    found = list(operations(described))

    assert len(found) == len({operation["operationId"] for _, _, operation in found})
    assert all(operation["summary"] and operation["description"] for _, _, operation in found)
    parameters = [resolved(described, one) for _, _, operation in found for one in operation["parameters"]]
    assert all(parameter["description"] for parameter in parameters)


def test_writes_and_nothing_else_may_need_a_key(described: Json) -> None:
    """They can be refused for want of it."""
    for path, method, operation in operations(described):
        writes = method != "get" and path != "/ranks"
        assert ("security" in operation) == ("401" in operation["responses"]) == writes


def test_every_refusal_is_a_known_kind_of_problem(app: Litestar, described: Json) -> None:
    """With an example of each kind that it may be."""
    assert all(set(handler.opt["doc"].problems) <= set(KINDS) for handler in handlers(app))
    assert SLUGS.items() <= {slug: kind.status for slug, kind in KINDS.items()}.items()
    for name, answer in described["components"]["responses"].items():
        (content,) = answer["content"].values()
        kinds = {slug: msgspec.to_builtins(KINDS[slug]) for slug in name.split(".")}
        assert kinds == {slug: example["value"] for slug, example in content["examples"].items()}


def test_every_header_that_is_named_is_described(app: Litestar) -> None:
    """Of requests and of answers."""
    for handler in handlers(app):
        assert set(handler.opt["doc"].headers) <= set(REQUEST_HEADERS)
        assert all(set(says.headers) <= set(RESPONSE_HEADERS) for says in handler.opt["doc"].answers.values())


def test_every_example_is_what_its_schema_says(described: Json) -> None:
    """Of bodies, headers and parameters."""
    found = [(content["schema"], example) for content in contents(described) for example in examples(content)]
    assert len(found) > 40
    for parameter in described["components"]["parameters"].values():
        found += [(parameter["schema"], example) for example in parameter["schema"]["examples"]]
    for schema, example in found:
        value = int(str(example)) if schema.get("type") == "integer" else example
        Draft202012Validator({**schema, "components": described["components"]}).validate(value)


def test_bodies_have_the_fields_that_are_documented_and_no_others(described: Json) -> None:
    """Neither those that are asked nor those that are answered; and patterns are of JSON's dialect."""
    for schema in described["components"]["schemas"].values():
        assert schema["additionalProperties"] is False
    assert described["components"]["schemas"]["CreateUser"]["properties"]["id"] == {
        "description": "Opaque, for ever the user's.",
        "type": "string",
        "pattern": r"^(?!\.{1,2}$)[A-Za-z0-9_.:-]{1,64}$",
        "not": {"enum": [".", "..", "search"]},
    }
    assert described["components"]["schemas"]["SetRating"]["properties"]["rating"]["maximum"] == 5000


def test_a_parameter_says_what_is_checked(described: Json) -> None:
    """Its limits, whether it is needed, and what holds without it."""
    prefix, limit, *_ = described["paths"]["/users/search"]["get"]["parameters"]

    assert (True, {"type": "string", "minLength": 1}) == (prefix["required"], prefix["schema"])
    assert (False, {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}) == (
        limit["required"],
        limit["schema"],
    )


def test_the_description_is_served_and_need_not_be_fetched_twice(service: Service, described: Json) -> None:
    """It is the same as long as the process lives."""
    answer = service.get("/openapi.json")

    assert (200, "application/json") == (answer.status_code, answer.headers["content-type"])
    assert described == answer.json()
    again = service.get("/openapi.json", if_none_match=answer.headers["etag"])
    assert (304, b"", answer.headers["etag"]) == (again.status_code, again.content, again.headers["etag"])
    assert 200 == service.get("/openapi.json", if_none_match='"other"').status_code


_PRINT_DESCRIPTION = """
import sys
from service.app import create_app
from service.settings import Settings
app = create_app(Settings(database_url="postgresql:///nowhere", redis_url="redis://nowhere"))
while not hasattr(app, "routes"):
    app = app._app
sys.stdout.buffer.write(app.state.openapi.at("").content)
"""


def test_every_process_has_the_same_description() -> None:
    """Byte for byte, so that one ETag holds for all workers and restarts; hash seeds differ from process to process."""
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", _PRINT_DESCRIPTION],
            env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
        )
        for seed in (0, 3)
    ]
    descriptions = {program.communicate()[0] for program in programs}

    assert [0] * len(programs) == [program.returncode for program in programs]
    assert 1 == len(descriptions)


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/docs", "text/html"), ("/docs/docs.css", "text/css"), ("/docs/docs.js", "text/javascript")],
)
def test_the_page_is_served_without_another_host(service: Service, path: str, media_type: str) -> None:
    """Nothing in it is an address elsewhere, and a browser may load, run and send nothing but from and to here."""
    answer = service.get(path)

    assert (200, f"{media_type}; charset=utf-8") == (answer.status_code, answer.headers["content-type"])
    assert not re.search(r"https?:|//[a-z0-9-]+\.[a-z]|@import|\bimport\(", answer.text)
    assert 304 == service.get(path, if_none_match=answer.headers["etag"]).status_code


def test_the_page_has_no_script_or_style_of_its_own(service: Service) -> None:
    """So that the policy can forbid both; and everything that it refers to is there."""
    page = service.get("/docs")

    policy = dict(rule.strip().partition(" ")[::2] for rule in page.headers["content-security-policy"].split(";"))
    assert ("'none'", "'self'", "'self'") == (policy["default-src"], policy["script-src"], policy["style-src"])
    assert not re.search(r"<style|\bstyle=|\bon[a-z]+=|<script(?![^>]*\bsrc=)", page.text)
    linked = re.findall(r'(?:href|src)="([^"#:]*)"', page.text)
    # Relative, so that they are found behind a proxy that adds a path of its own.
    assert {".", "openapi.json", "docs/docs.css", "docs/docs.js"} == set(linked)
    assert all(service.get(f"/{address.removeprefix('.')}").status_code == 200 for address in linked)
