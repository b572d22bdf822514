"""A defect made on purpose: a text of the product, what stands there instead, and the tests that must notice."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class Gone(Exception):
    """The text that a mutation replaces is not in its file, or more than once; the message says so."""


class Mutation(NamedTuple):
    """`old` stands exactly once in `file`; with `new` in its place one of `tests` fails."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> str:
        """Change the file below `root`; returns what it was. Raises `Gone`."""
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            message = f"{self.file} has the text of {self.name} {text.count(self.old)} times"
            raise Gone(message)
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")
        return text
