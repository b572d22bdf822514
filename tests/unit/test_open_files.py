"""How many connections fit below the limit of open files, and how far that limit is raised for them."""

from __future__ import annotations

import resource

import pytest

from service.__main__ import OTHER_FILES, room_for

NONE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "connections", "raised", "fit"),
    [
        ((1024, 1_048_576), 16_384, 16_384 + OTHER_FILES, 16_384),
        ((1024, NONE), 16_384, 16_384 + OTHER_FILES, 16_384),
        ((65_536, 65_536), 16_384, None, 16_384),
        ((NONE, NONE), 16_384, None, 16_384),
        ((1024, 4096), 16_384, 4096, 4096 - OTHER_FILES),
        ((4096, 4096), 16_384, None, 4096 - OTHER_FILES),
        ((64, 128), 16_384, 128, 1),
        ((1024, 4096), 10, None, 10),
    ],
)
def test_the_limit_is_raised_as_far_as_needed_and_allowed(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], connections: int, raised: int | None, fit: int
) -> None:
    """Never lowered, never beyond what the system allows; what does not fit is not taken."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: asked.append(wanted))

    assert fit == room_for(connections)
    assert asked == ([] if raised is None else [(raised, limits[1])])
