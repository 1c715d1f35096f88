"""Modules list, control groups' files, processes by descriptor, SCSI addresses."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from parma_api.status import (
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
)
from parma_guest.linux import cgroup, modules, pidfd
from parma_guest.linux.blockdev import ScsiAddress, opened
from parma_guest.linux.errno import KernelError

LIST = """storage 1 /m/dm_crypt.ko
storage 0 /m/dm_mod.ko
net 0 /m/failover.ko

storage 0 /m/with space.ko
"""


def test_modules_by_level() -> None:
    assert modules.parse_list(LIST, "storage") == [
        ["/m/dm_mod.ko", "/m/with space.ko"],
        ["/m/dm_crypt.ko"],
    ]


def test_an_unknown_group_is_an_error() -> None:
    with pytest.raises(NotFoundError, match="vsock"):
        modules.parse_list(LIST, "vsock")


def test_a_module_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "x.ko"
    file.write_bytes(b"not an ELF")
    with pytest.raises(KernelError, match=r"finit_module .*x\.ko"):
        modules.load(str(file))


@pytest.mark.parametrize(
    ("limits", "files"),
    [
        (cgroup.Limits(), ()),
        (
            cgroup.Limits(memory_max=1 << 20, pids_max=-1),
            (("memory.max", "1048576"), ("pids.max", "max")),
        ),
        (cgroup.Limits(cpu_quota=50_000), (("cpu.max", "50000 100000"),)),
        (cgroup.Limits(cpu_quota=-1, cpu_period=1000), (("cpu.max", "max 1000"),)),
        (
            cgroup.Limits(cpu_weight=100, cpus="0-1", swap_max=0),
            (("memory.swap.max", "0"), ("cpu.weight", "100"), ("cpuset.cpus", "0-1")),
        ),
    ],
)
def test_limits_as_files(limits: cgroup.Limits, files: tuple[tuple[str, str], ...]) -> None:
    assert limits.files() == files


@pytest.mark.parametrize(
    ("shares", "weight"), [(0, 1), (2, 1), (1024, 39), (262144, 10000), (1 << 40, 10000)]
)
def test_weight_of_shares(shares: int, weight: int) -> None:
    assert cgroup.weight_of_shares(shares) == weight


def test_statistics_of_a_directory(tmp_path: Path) -> None:
    for name, text in {
        "cpu.stat": "usage_usec 5\nuser_usec 3\n",
        "memory.stat": "anon 4096\nfile 0\n",
        "memory.current": "8192\n",
        "memory.max": "max\n",
        "memory.events": "low 0\nhigh 0\nmax 1\noom 1\noom_kill 2\n",
        "pids.current": "3\n",
        "pids.max": "100\n",
        "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
    }.items():
        (tmp_path / name).write_text(text)
    stats = cgroup.Cgroup(str(tmp_path)).stats()
    assert stats.cpu["usage_usec"] == 5
    assert stats.memory["anon"] == 4096
    assert (stats.memory_current, stats.memory_max) == (8192, cgroup.NO_LIMIT)
    assert (stats.swap_current, stats.swap_max) == (0, 0)
    assert stats.memory_events["oom_kill"] == 2
    assert stats.io[0].major == 8
    assert stats.io[0].values["wios"] == 4


def test_writes_and_tree_of_a_group(tmp_path: Path) -> None:
    group = cgroup.Cgroup(str(tmp_path / "pod"))
    group.create()
    group.create()
    child = group.child("c1")
    child.create()
    Path(group.path, "cgroup.procs").write_text("12\n7\n")
    Path(child.path, "cgroup.procs").write_text("9\n")
    assert group.processes() == (7, 9, 12)
    Path(child.path, "cgroup.procs").unlink()
    Path(group.path, "cgroup.procs").unlink()
    group.remove()
    assert not Path(group.path).exists()
    group.remove()


def test_waiting_for_an_event_ends(tmp_path: Path) -> None:
    group = cgroup.Cgroup(str(tmp_path))
    (tmp_path / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    group.wait_empty(1.0)
    with pytest.raises((DeadlineExceededError, PermissionError)):
        group.freeze(0.0)


def test_programs_run_to_their_end() -> None:
    pidfd.run(["/bin/true"], time.monotonic() + 10)
    with pytest.raises(InternalError, match="status 1"):
        pidfd.run(["/bin/false"], time.monotonic() + 10)
    with pytest.raises(KernelError, match="posix_spawn"):
        pidfd.run(["/nonexistent"], time.monotonic() + 10)
    assert not pidfd.CHILDREN


def test_a_program_that_hangs_is_killed() -> None:
    start = time.monotonic()
    with pytest.raises(DeadlineExceededError, match="killed"):
        pidfd.run(["/bin/sleep", "60"], start + 0.1)
    assert time.monotonic() - start < 10
    assert not pidfd.CHILDREN


@pytest.mark.parametrize(("controller", "lun"), [(-1, 0), (4, 0), (0, -1), (0, 16384)])
def test_addresses_out_of_range(controller: int, lun: int) -> None:
    with pytest.raises(InvalidArgumentError):
        ScsiAddress(controller, lun)


def test_what_is_no_block_device_is_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "disk"
    file.write_bytes(bytes(4096))
    with pytest.raises(InvalidArgumentError), opened(str(file)):
        raise AssertionError
    link = tmp_path / "link"
    link.symlink_to("/dev/loop0")
    with pytest.raises(KernelError), opened(str(link)):
        raise AssertionError
