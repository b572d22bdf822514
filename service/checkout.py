"""Where this code lies: in a checkout of the repository (or a container's copy of it), or installed as a package."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The directory that holds the package `service`: the repository, or the environment's site-packages."""
IS_CHECKOUT = (ROOT / "scripts" / "server").is_file()
RECONCILE = "scripts/reconcile.py" if IS_CHECKOUT else "ladder reconcile"
IMPORT = "scripts/import_users.py" if IS_CHECKOUT else "ladder import"
"""What messages call the commands: as the operator types them."""


def data_directory() -> Path:
    """Return where the embedded pair keeps its data unless told otherwise."""
    if IS_CHECKOUT:
        return ROOT / ".ladder"
    shared = Path(os.environ.get("XDG_DATA_HOME", ""))
    try:
        return (shared if shared.is_absolute() else Path.home() / ".local" / "share") / "ladder"
    except RuntimeError:
        # An account without a home, as in a container.
        return Path(".ladder").absolute()


def import_path(own: str | None) -> dict[str, str]:
    """Return the variable by which a child finds this package, before what PYTHONPATH held; none if it is installed."""
    if not IS_CHECKOUT:
        return {} if own is None else {"PYTHONPATH": own}
    return {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [own])])}
