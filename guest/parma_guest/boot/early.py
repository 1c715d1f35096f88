"""What the agent does besides answering: the mounts that init has not made, and kernel modules by group.

init (guest/image/init) has mounted proc, sys, devtmpfs, cgroup2, /run and /tmp. Nothing here is needed for the first
answer; `load_modules` is started right behind it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from parma_api.volumes import GUEST_ROOT, LAYER_ROOT
from parma_guest import ops
from parma_guest.linux import mount
from parma_guest.linux.devmapper import make_control_node
from parma_guest.linux.errno import KernelError
from parma_guest.linux.modules import load_groups
from parma_guest.linux.netns import PINNED
from parma_guest.storage.directories import MakeDirectory

GROUPS = ("storage", "net")
"""What every pod needs; `vsock`, `accel`, `snp` and `cuse` are loaded by whoever needs them."""
_EBUSY = 16


@dataclass(frozen=True, slots=True)
class MountOnce:
    """A kernel file system that may be mounted already."""

    fstype: str
    target: str
    flags: int
    options: str = ""

    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target}"

    def apply(self) -> None:
        if os.path.ismount(self.target):
            return
        try:
            mount.mount(self.fstype, self.target, self.fstype, self.flags, self.options)
        except KernelError as error:
            if error.number != _EBUSY:
                raise


def plan_mounts() -> tuple[ops.Operation, ...]:
    """Everything that containers and storage expect."""
    quiet = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
    return (
        MakeDirectory("/dev/pts"),
        MountOnce(
            "devpts", "/dev/pts", mount.MS_NOSUID | mount.MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"
        ),
        MakeDirectory("/dev/shm"),  # noqa: S108 (a mount point)
        MountOnce("tmpfs", "/dev/shm", quiet, "mode=1777"),  # noqa: S108
        MakeDirectory("/dev/mqueue"),
        MountOnce("mqueue", "/dev/mqueue", quiet),
        MakeDirectory(GUEST_ROOT),
        MakeDirectory(LAYER_ROOT),
        MakeDirectory(PINNED, 0o700),
    )


def make_mounts() -> None:
    """Carry `plan_mounts` out. Raises KernelError."""
    ops.apply(plan_mounts())


def load_modules(groups: tuple[str, ...] = GROUPS) -> None:
    """Load kernel modules and make the device-mapper's node. Blocks about a second; call it in a thread."""
    load_groups(groups)
    make_control_node()
