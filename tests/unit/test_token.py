"""Consistency tokens: what a write gives out is read back as it was, and nothing else is a token."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.inputs import token
from service.api.operation import REQUEST_HEADERS
from service.errors import Invalid
from service.model import RESERVED_IDS, Token, UserId, Version

ids = st.text("aZ09_.:-", min_size=1, max_size=64).filter(lambda text: text not in RESERVED_IDS)

DESCRIBED = str(REQUEST_HEADERS["X-Consistency-Token"].schema["pattern"])


@given(ids, st.integers(1, 10**15 - 1))
def test_a_token_is_read_back(user_id: str, version: int) -> None:
    """An id may hold colons, at its end too: the version is what follows the last one."""
    given_out = Token(UserId(user_id), Version(version))

    assert given_out == token(str(given_out))
    assert re.search(DESCRIBED, str(given_out))


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "ada", "ada:", ":7", "ada:0", "ada:07", "ada:-7", "ada:+7", "ada:7.0", "ada:7 ", " ada:7", "ada:7\n", "ada:v7",
        "ada:\u0667", "ada:1e3", "ada:1234567890123456", "a da:7", "ad\u00e4:7", "ada:7, bob:8", "a" * 65 + ":7", '"ada:7"',
        ".:7", "..:7", "search:7",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    """By the name of the header that it came in; an id that no user can have is in no token."""
    with pytest.raises(Invalid) as refused:
        token(text)

    assert ["X-Consistency-Token"] == [field for field, _ in refused.value.problems]
    # Python's `$` matches before a last line end; that of JSON Schema does not.
    assert text.endswith("\n") or not re.search(DESCRIBED, text)
