"""Device-mapper by ioctl (include/uapi/linux/dm-ioctl.h), without libdevmapper and without udev."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from errno import EBUSY

from parma_api.block.messages import (
    DEV_CREATE,
    DEV_REMOVE,
    DEV_STATUS,
    DEV_SUSPEND,
    READONLY,
    SECURE_DATA,
    STATUS_TABLE,
    TABLE_LOAD,
    TABLE_STATUS,
    pack,
    request,
    unpack_device,
    unpack_targets,
)
from parma_api.block.tables import Target, same_table
from parma_api.status import DataLossError
from parma_guest.linux.errno import KernelError, kernel_call
from parma_guest.linux.ioctl import ioctl

CONTROL = "/dev/mapper/control"
_MISC_MAJOR = 10


def make_control_node(path: str = CONTROL) -> None:
    """Make /dev/mapper/control where devtmpfs has not (it does, once dm_mod is loaded)."""
    with kernel_call("mkdir", path):
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)  # noqa: PTH103, PTH120 (pathlib costs an import)
    if os.path.exists(path):  # noqa: PTH110
        return
    with open("/proc/misc", encoding="ascii") as table:  # noqa: PTH123
        minors = [int(line.split()[0]) for line in table if line.split()[1] == "device-mapper"]
    with kernel_call("mknod", path, "is the module dm_mod loaded?"), suppress(FileExistsError):
        os.mknod(path, 0o600 | 0o020000, os.makedev(_MISC_MAJOR, minors[0] if minors else 0))


class DeviceMapper:
    """The kernel's device-mapper. Every call raises KernelError."""

    def __init__(self, control: str = CONTROL) -> None:
        self._control = control

    def _call(self, number: int, buffer: bytearray, name: str, what: str) -> bytearray:
        with kernel_call("open", self._control, "is the module dm_mod loaded?"):
            fd = os.open(self._control, os.O_RDWR | os.O_CLOEXEC)
        try:
            return ioctl(fd, request(number), buffer, name=name, what=what)
        finally:
            os.close(fd)

    def create(self, name: str) -> str:
        """A device without a table; its node."""
        answer = self._call(DEV_CREATE, pack(name), "DM_DEV_CREATE", name)
        return f"/dev/dm-{unpack_device(answer)[1]}"

    def load(self, name: str, target: Target, *, read_only: bool) -> None:
        """Give the device a table and make it live; the kernel wipes its copy of the request."""
        flags = SECURE_DATA | (READONLY if read_only else 0)
        self._call(TABLE_LOAD, pack(name, flags, target), "DM_TABLE_LOAD", target.describe())
        self._call(DEV_SUSPEND, pack(name, READONLY if read_only else 0), "DM_DEV_SUSPEND", name)

    def node(self, name: str) -> str:
        """The node of the device of that name; without udev nothing appears beneath /dev/mapper."""
        answer = self._call(DEV_STATUS, pack(name), "DM_DEV_STATUS", name)
        return f"/dev/dm-{unpack_device(answer)[1]}"

    def number(self, name: str) -> str:
        """`major:minor` of the device of that name."""
        major, minor = unpack_device(self._call(DEV_STATUS, pack(name), "DM_DEV_STATUS", name))
        return f"{major}:{minor}"

    def table(self, name: str) -> list[Target]:
        """The live table."""
        answer = self._call(TABLE_STATUS, pack(name, STATUS_TABLE), "DM_TABLE_STATUS", name)
        return unpack_targets(answer)

    def status(self, name: str) -> str:
        """The target's status line; of verity `V`, or `C` once it has met a corrupt block."""
        answer = self._call(TABLE_STATUS, pack(name), "DM_TABLE_STATUS", name)
        targets = unpack_targets(answer)
        return targets[0].parameters if targets else ""

    def remove(self, name: str, *, patience: float = 2.0) -> None:
        """Remove the device; one that is still open for a moment is tried again for `patience` seconds."""
        deadline = time.monotonic() + patience
        while True:
            try:
                self._call(DEV_REMOVE, pack(name), "DM_DEV_REMOVE", name)
                return
            except KernelError as error:
                if error.number != EBUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def require(self, name: str, want: Target) -> None:
        """Read the live table back and compare. Raises DataLossError if it is another one."""
        live = self.table(name)
        if len(live) != 1 or not same_table(want, live[0]):
            shown = " | ".join(target.describe() for target in live)
            raise DataLossError(f"{name}: the kernel's table is [{shown}], not [{want.describe()}]")
