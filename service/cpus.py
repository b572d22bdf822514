"""How many processors this process may use: what the kernel lets it run on, and what its cgroup lets it consume."""

from __future__ import annotations

import math
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Mount(NamedTuple):
    """Where a hierarchy of cgroups is mounted, and the cgroup that is seen there."""

    point: Path
    root: str
    has_unified_hierarchy: bool


def usable_cpus() -> int:
    """Return how many processes can run at once, at least 1: a quota of half a processor counts as one."""
    visible = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return visible if quota is None else max(1, min(visible, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """
    Return how many processors the cgroups allow this process, None without a limit.

    The limit is the smallest on the way from its own cgroup up to the one that is mounted. `root` holds `proc` and the
    mounted hierarchies; a file that is missing or unreadable sets no limit.
    """
    quotas = [quota for group in _groups(root) for quota in (_of_version_2(group), _of_version_1(group)) if quota]
    return min(quotas, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Yield the directories of this process's cgroups with a processor controller, from its own one up."""
    paths = _paths(root)
    for mount in _mounts(root):
        path = paths.get("" if mount.has_unified_hierarchy else "cpu")
        if path is None:
            continue
        # In a container without a namespace of its own the path is the host's, and the mount begins further down.
        inside = path.removeprefix(mount.root) if mount.root != "/" else path
        group = mount.point / inside.strip("/")
        # A path outside the namespace of the cgroup, or one that is not mounted here, says nothing.
        if ".." in group.parts or not group.is_dir():
            group = mount.point
        yield group
        while group != mount.point:
            group = group.parent
            yield group


def _paths(root: Path) -> dict[str, str]:
    """Return the path of this process's cgroup by controller; that of version 2 has an empty name."""
    paths = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _read(root / "proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.partition(" ")
        found = re.match(r"(?:\S+ ){3}(\S+) (\S+)", fields)
        if found and (kind == "cgroup2" or (kind == "cgroup" and "cpu" in re.split("[ ,]", options))):
            yield _Mount(root / found[2].lstrip("/"), found[1], kind == "cgroup2")


def _of_version_2(group: Path) -> float | None:
    quota, _, period = _read(group / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _of_version_1(group: Path) -> float | None:
    return _ratio(_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    # "max", or -1 in version 1, is no limit.
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None


def _read(file: Path) -> str:
    with suppress(OSError, ValueError):
        # A path that is mounted may have any bytes.
        return file.read_text(errors="surrogateescape").strip()
    return ""
