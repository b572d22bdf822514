"""JSON Schemas of what goes over the wire, from the types that it is decoded into and encoded from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from service.api.problems import Problem
from service.model import MAX_RATING, MIN_RATING, USER_ID

if TYPE_CHECKING:
    from collections.abc import Iterable

    Json = dict[str, Any]

_WORDS: dict[str, Json] = {
    "id": {"description": "Opaque, for ever the user's.", "pattern": "^" + USER_ID.pattern},
    "username": {"description": "Unique without regard to case, shown as it was given."},
    "rating": {"description": "What users are ranked by.", "minimum": MIN_RATING, "maximum": MAX_RATING},
    "rank": {"description": "1 + the number of users with a higher rating: equal ratings, equal rank.", "minimum": 1},
    "position": {"description": "Place in `rating DESC, username ASC`, by bytes: unique, without gaps.", "minimum": 1},
    "created_at": {"format": "date-time"},
    "updated_at": {"format": "date-time"},
    "previous_rating": {"description": "The rating before this write."},
    "previous_rank": {"description": "The rank before this write; null if the mirror could not tell."},
    "total": {"description": "How many users there are."},
    "next_cursor": {"description": "Continues after the last row; null at the end."},
    "lag_ms": {"description": "Every change older than this, in milliseconds, is in the mirror.", "minimum": 0},
}
"""What a field of that name means in every body."""


class Schemas:
    """The schemas of bodies, by the types of their examples: an answer has the fields of its type and no others."""

    def __init__(self, examples: Iterable[object]) -> None:
        types = list(dict.fromkeys([Problem, *(type(example) for example in examples)]))
        found, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
        self._of = dict(zip(types, found, strict=True))
        self.components: Json = {name: _worded(schema) for name, schema in sorted(components.items())}

    def content(self, example: object, media_type: str) -> Json:
        """Return the content of a request or an answer with a body like this."""
        return {media_type: {"schema": self._of[type(example)], "example": msgspec.to_builtins(example)}}


def _worded(schema: Json) -> Json:
    if "properties" not in schema:
        return schema
    properties = {name: {**_WORDS.get(name, {}), **field} for name, field in schema["properties"].items()}
    return {**schema, "properties": properties, "additionalProperties": False}


def with_json_patterns(value: Any) -> Any:
    r"""Return the value with the patterns in it spelled as in ECMAScript, which has no `\Z` and whose `$` is that."""
    if isinstance(value, dict):
        return {
            key: inner.replace(r"\Z", "$") if key == "pattern" else with_json_patterns(inner)
            for key, inner in value.items()
        }
    return [with_json_patterns(inner) for inner in value] if isinstance(value, list) else value
