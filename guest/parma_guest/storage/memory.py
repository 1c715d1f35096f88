"""Directories in memory beneath the pod's directory: an emptyDir of `medium: Memory` is a tmpfs of a bounded size."""

from __future__ import annotations

import os
from typing import Protocol

from parma_api.status import FailedPreconditionError
from parma_guest.linux import mount
from parma_guest.linux.beneath import Beneath
from parma_guest.oci.resources import machine


class Wanted(Protocol):
    """What is to be made (an entry of PutFiles)."""

    @property
    def path(self) -> str: ...
    @property
    def mode(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def size(self) -> int: ...


def options(wanted: Wanted, memory: int) -> str:
    """tmpfs(5): at most what the VM has (`memory`, bytes), at least a page. Pure."""
    size = min(max(wanted.size or memory, os.sysconf("SC_PAGE_SIZE")), memory)
    return f"size={size},mode={wanted.mode:o},uid={wanted.uid},gid={wanted.gid}"


def mount_memory(tree: Beneath, wanted: Wanted) -> None:
    """Mounts an empty tmpfs at the path. Raises FailedPreconditionError if something is there, KernelError."""
    tree.make_parents(wanted.path)
    tree.mkdir(wanted.path, 0o700)
    if tree.listing(wanted.path):
        raise FailedPreconditionError(f"{wanted.path}: a directory in memory is made empty")
    fd = tree.open(wanted.path, os.O_PATH | os.O_DIRECTORY)
    try:
        flags = mount.MS_NOSUID | mount.MS_NODEV
        data = options(wanted, machine().memory)
        mount.mount("tmpfs", f"/proc/thread-self/fd/{fd}", "tmpfs", flags, data)
    finally:
        os.close(fd)


def unmount_memory(tree: Beneath, path: str) -> None:
    """Takes it away, lazily: the descriptor that names it is one of its users. Raises KernelError."""
    fd = tree.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        target = os.readlink(f"/proc/thread-self/fd/{fd}")  # noqa: PTH115 (pathlib costs an import)
    finally:
        os.close(fd)
    mount.umount(target, mount.MNT_DETACH)
