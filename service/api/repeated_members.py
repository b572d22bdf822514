"""Finds a member that a JSON object has twice: RFC 8259 leaves open which one counts, so two readers may disagree."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Members(list[tuple[str, object]]):
    """An object as its members in order."""


def repeated_member(raw: bytes) -> str | None:
    """Return the path of the first repeated member, for example `updates[2].rating`; None if all are unique. O(length)."""
    is_unique = True

    def members(pairs: list[tuple[str, object]]) -> None:
        nonlocal is_unique
        is_unique = is_unique and len(dict(pairs)) == len(pairs)

    # Numbers stay text: an integer of a thousand digits is not converted, which is slow.
    json.loads(raw, object_pairs_hook=members, parse_int=str, parse_float=str)
    if is_unique:
        return None
    return next(_repetitions(json.loads(raw, object_pairs_hook=_Members, parse_int=str, parse_float=str), ""), "body")


def _repetitions(value: object, path: str) -> Iterator[str]:
    if isinstance(value, _Members):
        seen: set[str] = set()
        for name, inner in value:
            if name in seen:
                yield f"{path}.{name}".removeprefix(".")
            seen.add(name)
            yield from _repetitions(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _repetitions(inner, f"{path}[{number}]")
