"""Where a VM goes, from the mounts and paths of real hosts, and made for real."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from parma_api.status import InvalidArgumentError
from parma_shim.vmm.cgroup import expand, make_pod_cgroups, parse_hierarchies, plan

HYBRID = """\
24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw
30 29 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = "31 30 0:27 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_hybrid_and_unified() -> None:
    assert [str(p) for p in plan("/k8s.io/x", parse_hierarchies(HYBRID))] == [
        "/sys/fs/cgroup/cpu,cpuacct/k8s.io/x",
        "/sys/fs/cgroup/memory/k8s.io/x",
    ]
    assert [str(p) for p in plan("/k8s.io/x", parse_hierarchies(UNIFIED))] == [
        "/sys/fs/cgroup/k8s.io/x"
    ]
    assert plan("/x", parse_hierarchies("")) == ()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/kubepods/burstable/pod1/x", "kubepods/burstable/pod1/x"),
        (
            "kubepods-besteffort-pod1.slice:cri-containerd:abc",
            "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-abc.scope",
        ),
    ],
)
def test_both_drivers(path: str, expected: str) -> None:
    assert str(expand(path)) == expected


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/a/../../b",
        "..",
        "x" * 2000,
        "a\0b",
        "noslice:p:n",
        ".slice:p:n",
        "a/b.slice:p:n",
        "a.slice:p:../x",
    ],
)
def test_strange_paths(path: str) -> None:
    with pytest.raises(InvalidArgumentError):
        expand(path)


@pytest.mark.root
def test_made_used_and_removed() -> None:
    name = f"/parma-test-{os.getpid()}/pod"
    cgroups = make_pod_cgroups(name)
    assert cgroups.directories
    again = make_pod_cgroups(name)
    assert (again.directories, again.made) == (cgroups.directories, ())
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        for directory in cgroups.directories:
            (directory / "cgroup.procs").write_text(str(sleeper.pid))
            assert (directory / "cgroup.procs").read_text().split() == [str(sleeper.pid)]
        cgroups.remove()
        assert all(directory.is_dir() for directory in cgroups.directories)
    finally:
        sleeper.kill()
        sleeper.wait()
    cgroups.remove()
    assert not any(Path(directory).parent.exists() for directory in cgroups.directories)
