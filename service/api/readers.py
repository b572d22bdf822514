"""What a parameter may say, to the code that reads it and to the API's description alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from service.model import MAX_RATING, MIN_RATING, RESERVED_IDS, USER_ID, UserId


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one parameter may say: how its text is read, and the same in JSON Schema for the API's description.

    A call returns the value, or raises ValueError with what is wrong. A parameter that is not given has its
    default, if there is one, and is refused if it is required.
    """

    read: Callable[[str], object]
    schema: Mapping[str, object]
    about: str = ""
    default: object = msgspec.UNSET
    required: bool = False

    def __call__(self, text: str) -> object:
        """Return the value of this text."""
        return self.read(text)


def whole(low: int, high: int, *, default: object = msgspec.UNSET, about: str = "") -> Reader:
    """Return a reader of whole numbers from `low` to `high`, digits only."""

    def read(text: str) -> int:
        if not re.fullmatch(r"0|[1-9][0-9]{0,15}", text) or not low <= int(text) <= high:
            message = f"must be a whole number from {low} to {high}"
            raise ValueError(message)
        return int(text)

    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Reader(read=read, schema=schema, about=about, default=default)


def some_text(*, required: bool = False, about: str = "") -> Reader:
    """Return a reader of any text but the empty one."""

    def read(text: str) -> str:
        if not text:
            message = "must not be empty"
            raise ValueError(message)
        return text

    return Reader(read=read, schema={"type": "string", "minLength": 1}, about=about, required=required)


def _user_id(text: str) -> UserId:
    if not USER_ID.match(text):
        message = "must have 1 to 64 characters of A-Z a-z 0-9 _ . : -, and be neither . nor .."
        raise ValueError(message)
    return UserId(text)


IN_PATH = {
    "user_id": (
        "id",
        Reader(
            read=_user_id,
            schema={
                "type": "string",
                "pattern": "^" + USER_ID.pattern,
                "not": {"enum": sorted(RESERVED_IDS)},
                "examples": ["ada"],
            },
            about="The user's id.",
            required=True,
        ),
    ),
    "site_file": (
        "file",
        Reader(
            read=str,
            schema={"type": "string", "pattern": r"^[a-z]+\.(css|js|svg)$", "examples": ["board.js"]},
            about="The file's name.",
            required=True,
        ),
    ),
    "rating": ("rating", msgspec.structs.replace(whole(MIN_RATING, MAX_RATING, about="A rating."), required=True)),
}
"""Parameters in paths: the router's name of each, the client's, and its reader."""
