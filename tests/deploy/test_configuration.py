"""The reference of settings is what the settings say."""

from __future__ import annotations

import subprocess

from tests.api.serving import ROOT


def test_the_reference_is_what_the_script_prints() -> None:
    """Written anew by `scripts/configuration.py > docs/configuration.md`."""
    printed = subprocess.run(
        [str(ROOT / "scripts/configuration.py")], capture_output=True, text=True, check=True
    ).stdout

    assert printed == (ROOT / "docs/configuration.md").read_text()
    assert "||" not in printed.replace("| |", "")
