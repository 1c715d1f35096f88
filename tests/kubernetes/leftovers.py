"""What pods could leave behind on the node, counted: a listing before and after."""

from __future__ import annotations

import time
from collections.abc import Sequence

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


KEPT = ("containers", "snapshots")
"""The kubelet keeps the last dead container of a pod that lives, for its log."""


def steady(lab: Lab, machines: int) -> dict[str, int]:
    """The listing, once so many machines run and it is the same twice: status tells what was, for a while."""
    deadline, last = time.monotonic() + 180, dict[str, int]()
    while True:
        now = listing(lab)
        if now == last and now["machines"] == now["shims"] == now["pods"] == machines:
            return now
        assert time.monotonic() < deadline, f"not {machines} machines at rest: {now}"
        last = now
        time.sleep(5)


def settles(
    lab: Lab, before: dict[str, int], *, without: Sequence[str] = (), seconds: float = 120
) -> None:
    """Waits until there is no more of anything than before; else fails with it. The kubelet cleans up once a minute."""
    deadline = time.monotonic() + seconds
    while True:
        now = listing(lab)
        more = {
            name: (before[name], number)
            for name, number in now.items()
            if number > before[name] and name not in without
        }
        if not more:
            return
        assert time.monotonic() < deadline, f"left over, before and now: {more}"
        time.sleep(1)


def listing(lab: Lab) -> dict[str, int]:
    """Names and counts."""
    rows = lab.cluster.node("sh", "-c", _LISTING).splitlines()
    return {row.split()[0]: int(row.split()[1]) for row in rows}
