"""The number of workers follows the processor quota of the cgroup, in both versions of the kernel's interface."""

from __future__ import annotations

from pathlib import Path

import pytest

from service import cpus
from service.cpus import cpu_quota, usable_cpus

UNIFIED = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
CPU = "33 30 0:29 {root} /sys/fs/cgroup/cpu,cpuacct ro,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
CPUSET = "34 30 0:30 {root} /sys/fs/cgroup/cpuset ro,nosuid - cgroup cgroup rw,cpuset\n"


def machine(folder: Path, cgroup: str, mounts: str, files: dict[str, str]) -> Path:
    """Files as the kernel shows them."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(cgroup)
    (folder / "proc/self/mountinfo").write_text(mounts)
    for name, text in files.items():
        file = folder / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return folder


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "50000 100000"}, 0.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.stat": "usage_usec 1"}, None),
        ({"cpu.max": "rubbish"}, None),
        ({"cpu.max": "100000 0"}, None),
    ],
)
def test_a_container_sees_its_own_cgroup_as_the_root(
    tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    """Version 2, in a namespace."""
    assert quota == cpu_quota(machine(tmp_path, "0::/\n", UNIFIED.format(root="/"), files))


def test_the_smallest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    """A unit in a slice may be limited by either; a sibling's limit is not ours."""
    files = {
        "a.slice/b.service/cpu.max": "400000 100000",
        "a.slice/cpu.max": "200000 100000",
        "a.slice/c.service/cpu.max": "10000 100000",
        "cpu.stat": "",
    }

    assert 2 == cpu_quota(machine(tmp_path, "0::/a.slice/b.service\n", UNIFIED.format(root="/"), files))


def test_version_1_has_a_hierarchy_for_each_controller(tmp_path: Path) -> None:
    """Only that of the processors is asked."""
    cgroup = "5:cpuset:/job\n4:cpu,cpuacct:/job/task\n1:name=systemd:/\n0::/\n"
    files = {
        "cpu,cpuacct/job/task/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/job/task/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/job/cpu.cfs_quota_us": "75000",
        "cpu,cpuacct/job/cpu.cfs_period_us": "50000",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "cpuset/job/cpu.cfs_quota_us": "1000",
        "cpuset/job/cpu.cfs_period_us": "100000",
    }
    mounts = CPU.format(root="/") + CPUSET.format(root="/")

    assert 1.5 == cpu_quota(machine(tmp_path, cgroup, mounts, files))


@pytest.mark.parametrize("root", ["/docker/abc", "/"])
def test_a_container_without_a_namespace_finds_its_cgroup_at_the_mount(tmp_path: Path, root: str) -> None:
    """The path in /proc is the host's, which is not visible there."""
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}

    assert 0.5 == cpu_quota(machine(tmp_path, "4:cpu,cpuacct:/docker/abc\n", CPU.format(root=root), files))


def test_a_cgroup_inside_a_container_without_a_namespace_is_found(tmp_path: Path) -> None:
    """Below the mount's own root."""
    files = {"cpu.max": "300000 100000", "worker/cpu.max": "50000 100000"}
    mounts = UNIFIED.format(root="/docker/abc")

    assert 0.5 == cpu_quota(machine(tmp_path, "0::/docker/abc/worker\n", mounts, files))


def test_a_path_outside_the_namespace_is_not_followed(tmp_path: Path) -> None:
    """The kernel shows `/..` for a process that was moved out of its namespace."""
    (tmp_path / "sys/fs").mkdir(parents=True)
    (tmp_path / "sys/fs/cpu.max").write_text("1000 100000\n")
    files = {"cpu.max": "200000 100000"}

    assert 2 == cpu_quota(machine(tmp_path, "0::/../other\n", UNIFIED.format(root="/"), files))


def test_without_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    """As on macOS, or where /proc is hidden."""
    assert cpu_quota(tmp_path) is None


def test_lines_that_say_nothing_of_cgroups_are_passed_over(tmp_path: Path) -> None:
    """Paths of other mounts may have any bytes, and a kernel may write lines of another form."""
    root = machine(
        tmp_path,
        "garbage\n0::/\n",
        f"short - cgroup2 cgroup2 rw\n{UNIFIED.format(root='/')}",
        {"cpu.max": "50000 100000"},
    )
    mounts = root / "proc/self/mountinfo"
    mounts.write_bytes(b"20 1 0:1 / /mnt/\xff rw - ext4 /dev/\xff rw\n" + mounts.read_bytes())

    assert 0.5 == cpu_quota(root)


@pytest.mark.parametrize(("quota", "usable"), [(0.1, 1), (0.5, 1), (1, 1), (1.5, 2), (3, 3), (500, 8), (None, 8)])
def test_a_part_of_a_processor_counts_as_one(monkeypatch: pytest.MonkeyPatch, quota: float | None, usable: int) -> None:
    """And there are never more than the kernel lets us run on."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cpus, "cpu_quota", lambda: quota)

    assert usable == usable_cpus()


def test_there_is_a_processor_to_run_on() -> None:
    """On this machine, whatever it is."""
    assert usable_cpus() >= 1
