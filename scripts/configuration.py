#!/usr/bin/env python3
"""
Print the reference of all settings, in Markdown: what docs/configuration.md must hold.

    scripts/configuration.py > docs/configuration.md
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# Python leaves this directory out if it is told to (-P, -I, PYTHONSAFEPATH).
sys.path.insert(0, str(Path(__file__).resolve().parent))
import _venv

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    _venv.enter()

# isort: split
import ast
import inspect
from itertools import pairwise

import msgspec

from service.settings import Settings

_HEAD = """\
# Configuration

Everything that can be set, by environment variables. A variable that is set wrong stops the start with one sentence
that names it, exit code 2. This page is written by `scripts/configuration.py` from `service/settings.py`.

| variable | default | |
|---|---|---|"""


def reference() -> str:
    """Return the page."""
    lines = [_HEAD]
    for field, meaning in zip(msgspec.structs.fields(Settings), _meanings(), strict=True):
        lines.append(f"| `{field.name.upper()}` | {_default(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _meanings() -> list[str]:
    """The sentence below each field."""
    (body,) = (node.body for node in ast.walk(ast.parse(inspect.getsource(Settings))) if isinstance(node, ast.ClassDef))
    sentences = []
    for node, following in pairwise(body):
        if isinstance(node, ast.AnnAssign):
            told = following.value if isinstance(following, ast.Expr) else None
            sentences.append(" ".join(str(told.value).split()) if isinstance(told, ast.Constant) else "")
    return [sentence.replace("|", "\\|") for sentence in sentences]


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return "one per core"
    if field.required:
        return "needed"
    if field.default is None or field.default == ():
        return ""
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


if __name__ == "__main__":
    print(reference(), end="")
