"""The files of the schema's migrations."""

from __future__ import annotations

from service.store.migrate import DIRECTORY


def test_every_migration_has_a_number_of_its_own() -> None:
    """They are applied in the order of their names, so a number says what a file can rely on."""
    numbers = [path.name.partition("_")[0] for path in sorted(DIRECTORY.glob("*.sql"))]

    assert [f"{number:04}" for number in range(1, len(numbers) + 1)] == numbers
