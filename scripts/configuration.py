#!/usr/bin/env python3
"""
Print the reference of all settings, in Markdown: what docs/configuration.md must hold.

    scripts/configuration.py > docs/configuration.md
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING

# Python leaves this directory out if it is told to (-P, -I, PYTHONSAFEPATH).
sys.path.insert(0, str(Path(__file__).resolve().parent))
import _venv

from service import standard_streams

if TYPE_CHECKING:
    import msgspec

_HEAD = """\
# Configuration

Everything that can be set, by environment variables. A variable that is set wrong stops the start with one sentence
that names it, exit code 2. This page is written by `scripts/configuration.py` from `service/settings.py`.

| variable | default | |
|---|---|---|"""


def reference() -> str:
    """Return the page."""
    import msgspec  # noqa: PLC0415  help needs no dependencies

    from service.settings import Settings  # noqa: PLC0415  likewise

    lines = [_HEAD]
    for field, meaning in zip(msgspec.structs.fields(Settings), _meanings(inspect.getsource(Settings)), strict=True):
        lines.append(f"| `{field.name.upper()}` | {_default(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _meanings(source: str) -> list[str]:
    """The sentence below each field."""
    from itertools import pairwise  # noqa: PLC0415  Python 3.10, and help is answered by older ones

    (body,) = (node.body for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef))
    sentences = []
    for node, following in pairwise(body):
        if isinstance(node, ast.AnnAssign):
            told = following.value if isinstance(following, ast.Expr) else None
            sentences.append(" ".join(str(told.value).split()) if isinstance(told, ast.Constant) else "")
    return [sentence.replace("|", "\\|") for sentence in sentences]


def _default(field: msgspec.structs.FieldInfo) -> str:
    import msgspec  # noqa: PLC0415  likewise

    if field.default_factory is not msgspec.NODEFAULT:
        return "one per core"
    if field.required:
        return "needed"
    if field.default is None or field.default == ():
        return ""
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def main() -> int:
    """Print the page; returns the exit code."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if sys.stdout is None:
        print("configuration.py: standard output is closed.", file=sys.stderr)
        return 2
    _venv.enter()
    print(reference(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(standard_streams.run(main, program="configuration.py"))
