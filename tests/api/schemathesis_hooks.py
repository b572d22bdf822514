"""What valid requests must be that no schema can say; loaded by schemathesis.toml."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import schemathesis
from schemathesis.generation import GenerationMode

from service.api.operation import REQUEST_HEADERS

if TYPE_CHECKING:
    from schemathesis import Case, HookContext


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:  # noqa: ARG001  as it calls hooks
    """Make a request valid that is meant to be; those that are not stay as they are."""
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    if "cursor" in (case.query or {}):
        # A cursor is signed, and excludes an offset, which OpenAPI has no word for.
        case.query["cursor"] = os.environ["CURSOR"]
        case.query.pop("offset", None)
    if (case.path_parameters or {}).get("id") == "search":
        # An address of its own.
        case.path_parameters["id"] = "ada"
    for name, header in REQUEST_HEADERS.items():
        # Its coverage phase takes the number 0 for a header whose text must match a pattern.
        if name in (case.headers or ()) and case.headers[name] == "0":
            case.headers[name] = header.example
    if isinstance(case.body, dict):
        # To JSON Schema 489.0 is an integer; here a number with a fraction is refused, whatever the fraction.
        body: dict[str, Any] = _whole(case.body)
        if "updates" in body:
            # Of different users, which JSON Schema has no word for.
            body["updates"] = list({update["id"]: update for update in body["updates"]}.values())
        case.body = body


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) else value
