"""
GET /openapi.json: the API's description in OpenAPI 3.1, put together once, at start, from what handlers say.

Each handler carries an `Operation` in `opt["doc"]`, the readers of its query in `opt["query"]`, and `opt["writes"]`
if it changes something; bodies are the very types that requests are decoded into and answers encoded from.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, Response, get
from litestar.routes import HTTPRoute

import service
from service.api.asgi import UNLIMITED
from service.api.asset import ASSET_HEADERS, Asset, asset_response
from service.api.operation import REQUEST_HEADERS, RESPONSE_HEADERS, Operation, Says
from service.api.problems import KINDS, MEDIA_TYPE
from service.api.readers import IN_PATH
from service.api.schemas import Schemas, with_json_patterns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from litestar import Litestar
    from litestar.handlers import HTTPRouteHandler

    from service.api.operation import Header
    from service.api.readers import Reader

    Json = dict[str, Any]

_LIMIT_HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
_OF_STATUS = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}

_PATHS = 16
"""Descriptions that are kept, one for each path that proxies serve the API below."""
_ABOUT = """\
A ranking service: exact live ranks from a Redis sorted set, Postgres as the system of record.

`rank` is 1 + the number of users with a higher rating: equal ratings, equal rank. `position` is the place in \
`rating DESC, username ASC`, by bytes: unique, without gaps, what pages are cut by.

What is not exactly as described here is refused: unknown or repeated parameters, unknown fields, other types, \
values out of range. Only pages and health checks ignore their query. Every route that answers GET answers HEAD. Refusals are RFC 9457 problem documents.
"""

_OPENAPI = Operation(
    tag="About",
    summary="This description",
    headers=("If-None-Match",),
    answers={
        200: Says("The description in OpenAPI 3.1.", {"openapi": "3.1.0"}, ASSET_HEADERS),
        304: Says("It has not changed.", headers=ASSET_HEADERS),
    },
)


@get("/openapi.json", opt={"doc": _OPENAPI})
async def get_openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the description of everything that can be asked here."""
    description: Description = request.app.state.openapi
    return asset_response(request, description.at(request.app.state.public_path(request.scope)))


class Description:
    """The description of an application's routes; raises KeyError where one names a problem that is none."""

    def __init__(self, app: Litestar) -> None:
        self._document = document(app)
        self.at = lru_cache(_PATHS)(self._at)

    def _at(self, path: str) -> Asset:
        """Return the description for clients who see the API below this path."""
        served = {**self._document, "servers": [{"url": path or "/"}]}
        return Asset.of(msgspec.json.encode(served), "application/json")


def document(app: Litestar) -> Json:
    """Return the description of those routes of this application that describe themselves."""
    routes = list(_routes(app))
    schemas = Schemas(_examples(operation for _, _, _, operation in routes))
    responses: Json = {}
    paths: dict[str, Json] = {}
    for path, method, handler, operation in routes:
        paths.setdefault(path, {})[method] = _operation(path, handler, operation, schemas, responses)
    described = {
        "openapi": "3.1.0",
        "info": {"title": "Ladder", "version": service.__version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": dict(sorted(responses.items())),
            "headers": {name: _header(header) for name, header in RESPONSE_HEADERS.items()},
            "parameters": {name: _parameter("header", name, header) for name, header in REQUEST_HEADERS.items()},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Needed where the operator has set keys."}
            },
        },
    }
    spelled: Json = with_json_patterns(described)
    return spelled


def _routes(app: Litestar) -> Iterator[tuple[str, str, HTTPRouteHandler, Operation]]:
    """Yield (path in the clients' words, method, handler, what it says) of each handler that says something."""
    for route in (each for each in app.routes if isinstance(each, HTTPRoute)):
        # The framework keeps the handlers of a path in a set, in an order that differs from process to process.
        for handler in sorted(route.route_handlers, key=lambda handler: sorted(handler.http_methods)):
            if "doc" in handler.opt:
                path = route.path_format
                for router_name, (name, _) in IN_PATH.items():
                    path = path.replace(f"{{{router_name}}}", f"{{{name}}}")
                for method in sorted(handler.http_methods):
                    yield path, method.lower(), handler, handler.opt["doc"]


def _operation(path: str, handler: HTTPRouteHandler, operation: Operation, schemas: Schemas, responses: Json) -> Json:
    answers = {str(status): _answer(says, path, schemas) for status, says in operation.answers.items()}
    for status, slugs in _refusals(path, handler, operation).items():
        if status in operation.answers:
            continue
        name = ".".join(slugs)
        responses[name] = _refusal(status, slugs)
        answers[str(status)] = {"$ref": f"#/components/responses/{name}"}
    described: Json = {
        "operationId": handler.handler_name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": inspect.cleandoc(handler.fn.__doc__ or ""),
        "parameters": _parameters(path, handler, operation),
        "responses": dict(sorted(answers.items())),
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": schemas.content(operation.body, "application/json")}
    if handler.opt.get("writes"):
        described["security"] = [{"key": []}, {}]
    return described


def _refusals(path: str, handler: HTTPRouteHandler, operation: Operation) -> dict[int, list[str]]:
    """Return the slugs of every refusal by status: the handler's own, and what is said around it."""
    # A body may be sent to any address, and be too large for it, or late.
    slugs = ["validation", "too-large-head", "too-large", "internal", *operation.problems]
    if path not in UNLIMITED:
        slugs += ["rate-limited", "unavailable", "too-slow"]
    if handler.opt.get("writes"):
        slugs += ["unauthorized", "outcome-unknown"]
    if operation.body is not None:
        slugs += ["unsupported-media-type"]
    found: dict[int, list[str]] = {}
    for slug in sorted(set(slugs)):
        found.setdefault(KINDS[slug].status, []).append(slug)
    return found


def _refusal(status: int, slugs: Sequence[str]) -> Json:
    kinds = {slug: KINDS[slug] for slug in slugs}
    schema = {"$ref": "#/components/schemas/Problem"}
    examples = {slug: {"value": msgspec.to_builtins(kind)} for slug, kind in kinds.items()}
    names = ("X-Request-Id", *_OF_STATUS.get(status, ()), *_LIMIT_HEADERS)
    return {
        "description": "; or ".join(kind.title for kind in kinds.values()) + ".",
        "headers": _header_references(names),
        "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }


def _answer(says: Says, path: str, schemas: Schemas) -> Json:
    names = ("X-Request-Id", *says.headers, *(_LIMIT_HEADERS if path not in UNLIMITED else ()))
    answer: Json = {"description": says.about, "headers": _header_references(names)}
    if says.example is not None:
        answer["content"] = schemas.content(says.example, says.media_type)
    return answer


def _parameters(path: str, handler: HTTPRouteHandler, operation: Operation) -> list[Json]:
    in_path = [_read("path", name, reader) for name, reader in IN_PATH.values() if f"{{{name}}}" in path]
    readers: Mapping[str, Reader] = handler.opt.get("query", {})
    in_query = [_read("query", name, reader) for name, reader in readers.items()]
    names = (*operation.headers, "X-Request-Id")
    return [*in_path, *in_query, *({"$ref": f"#/components/parameters/{name}"} for name in names)]


def _read(place: str, name: str, reader: Reader) -> Json:
    default = {} if reader.default is msgspec.UNSET else {"default": reader.default}
    schema = {**reader.schema, **default}
    return {"name": name, "in": place, "required": reader.required, "description": reader.about, "schema": schema}


def _parameter(place: str, name: str, header: Header) -> Json:
    return {
        "name": name,
        "in": place,
        "description": header.about,
        "schema": {**header.schema, "examples": [header.example]},
    }


def _header(header: Header) -> Json:
    about = {"description": header.about, "required": header.always}
    return {**about, "schema": header.schema, "example": header.example}


def _header_references(names: Iterable[str]) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _examples(operations: Iterable[Operation]) -> Iterator[object]:
    for operation in operations:
        yield operation.body
        yield from (says.example for says in operation.answers.values())
