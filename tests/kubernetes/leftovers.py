"""What pods could leave behind on the node, counted: a listing before and after."""

from __future__ import annotations

import time

from .conftest import Lab

_LISTING = r"""
echo machines $(ps -eo comm= | grep -c qemu-system)
echo shims $(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -o 'shim-parma-v[2] -namespace' | wc -l)
echo zombies $(ps -eo stat= | grep -c '^Z')
echo pods $(ls /run/parma 2>/dev/null | grep -vc '^denials$')
echo mounts $(grep -c -e /run/parma -e /var/lib/parma -e /io.containerd.runtime.v2.task/ /proc/self/mountinfo)
echo namespaces $(ls /run/netns 2>/dev/null | wc -l)
echo links $(ls /sys/class/net | wc -l)
echo cgroups $(find /sys/fs/cgroup -maxdepth 8 -type d | grep -c -e 'kubepods.*pod[^/]*$' -e '/cri-containerd-[^/]*$')
echo descriptors $(ls -l /proc/$(pgrep -xo containerd)/fd | grep -c -e /run/containerd/fifo -e io.containerd.grpc)
echo layers $(ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c /var/lib/parma/layers)
echo unfinished $(find /var/lib/parma/layers -name '*.part' -o -name '*.tmp' 2>/dev/null | wc -l)
echo containers $(ctr -n k8s.io containers ls -q | wc -l)
echo snapshots $(ctr -n k8s.io snapshots ls | wc -l)
echo tasks $(ctr -n k8s.io tasks ls -q | wc -l)
"""


def settles(lab: Lab, before: dict[str, int], seconds: float = 180) -> None:
    """Waits until the listing is as it was; fails with what differs. The kubelet cleans up once a minute."""
    deadline = time.monotonic() + seconds
    while (now := listing(lab)) != before and time.monotonic() < deadline:
        time.sleep(1)
    assert now == before


def listing(lab: Lab) -> dict[str, int]:
    """Names and counts."""
    rows = lab.cluster.node("sh", "-c", _LISTING).splitlines()
    return {row.split()[0]: int(row.split()[1]) for row in rows}
