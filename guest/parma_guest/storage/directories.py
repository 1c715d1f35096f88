"""Operations on directories and mount points."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from parma_guest.linux import mount
from parma_guest.linux.devmapper import DeviceMapper
from parma_guest.linux.errno import kernel_call
from parma_guest.ops import Undo, irreversible

# ruff: noqa: PTH103, PTH106 (pathlib costs an import)


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """A directory with what is above it, on the guest's own tmpfs; one that is there is kept."""

    path: str
    mode: int = 0o755

    def describe(self) -> str:
        return f"mkdir {self.path}"

    def apply(self) -> Undo | None:
        with kernel_call("mkdir", self.path):
            try:
                os.makedirs(self.path, self.mode)
            except FileExistsError:
                return None
        return lambda: os.rmdir(self.path)


@dataclass(frozen=True, slots=True)
class RemoveDirectory:
    """An empty directory; one that is absent or not empty is left."""

    path: str

    def describe(self) -> str:
        return f"rmdir {self.path}"

    def apply(self) -> None:
        with suppress(OSError):
            os.rmdir(self.path)


@dataclass(frozen=True, slots=True)
class MountDevice:
    """The file system on a device-mapper device."""

    device: str
    target: str
    fstype: str
    flags: int
    options: str

    def describe(self) -> str:
        return f"mount {self.fstype} {self.device} on {self.target}: {self.flags:#x} {self.options}"

    def apply(self) -> Undo:
        node = DeviceMapper().node(self.device)
        mount.mount(node, self.target, self.fstype, self.flags, self.options)
        return lambda: mount.umount(self.target)


@dataclass(frozen=True, slots=True)
class Unmount:
    """Take a mount away; EBUSY if it is in use, and then nothing has changed."""

    target: str

    def describe(self) -> str:
        return f"umount {self.target}"

    def apply(self) -> Undo:
        mount.umount(self.target)
        return irreversible(self.describe())
