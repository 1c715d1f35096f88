"""Device-mapper by ioctl, from a container whose /dev holds what it makes itself."""

from __future__ import annotations

import os
import stat
import time
from errno import EBUSY, ENXIO
from pathlib import Path
from typing import Final

from parma_api.block import messages
from parma_api.block.tables import Target, same_table
from parma_api.status import DataLossError
from parma_tenant.sidecar.volume.kernel import KernelError, ioctl, kernel_call

CONTROL: Final = "/dev/mapper/control"
NODES: Final = Path("/dev/parma-volumes")
_HINT: Final = "the policy must let this container be privileged, with CAP_SYS_ADMIN, and share a mount (rshared)"
_PATIENCE: Final = 10.0


def make_node(name: str, major: int, minor: int) -> str:
    """A block device's node in a directory of our own. Raises KernelError."""
    path = NODES / name
    with kernel_call("mknod", path, _HINT):
        NODES.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(major, minor))
    return str(path)


class DeviceMapper:
    """The kernel's device-mapper. Every call raises KernelError."""

    def _call(self, number: int, buffer: bytearray, name: str, what: str) -> bytearray:
        with kernel_call("open", CONTROL, _HINT):
            fd = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            ioctl(what, fd, messages.request(number), buffer, name)
        finally:
            os.close(fd)
        return buffer

    def create(self, name: str) -> str:
        """A device without a table; its number, `major:minor`."""
        answer = self._call(messages.DEV_CREATE, messages.pack(name), "DM_DEV_CREATE", name)
        major, minor = messages.unpack_device(answer)
        return f"{major}:{minor}"

    def load(self, name: str, target: Target, *, read_only: bool) -> None:
        """Give the device a table, make it live, and see that the live one is what was meant.

        Raises DataLossError if it is another.
        """
        mode = messages.READONLY if read_only else 0
        request = messages.pack(name, messages.SECURE_DATA | mode, target)
        self._call(messages.TABLE_LOAD, request, "DM_TABLE_LOAD", target.describe())
        self._call(messages.DEV_SUSPEND, messages.pack(name, mode), "DM_DEV_SUSPEND", name)
        live = self.table(name)
        if len(live) != 1 or not same_table(target, live[0]):
            raise DataLossError(f"{name}: the kernel's table is not the one that was meant")

    def table(self, name: str) -> list[Target]:
        """The live table."""
        request = messages.pack(name, messages.STATUS_TABLE)
        return messages.unpack_targets(
            self._call(messages.TABLE_STATUS, request, "DM_TABLE_STATUS", name)
        )

    def remove_if_there(self, name: str) -> None:
        """Remove the device; one that is not there is fine. Raises KernelError (EBUSY: in use)."""
        try:
            self.remove(name, patience=0.5)
        except KernelError as error:
            if error.number != ENXIO:
                raise

    def remove(self, name: str, patience: float = _PATIENCE) -> None:
        """Remove the device; one that is open for a moment is tried again for `patience` seconds."""
        deadline = time.monotonic() + patience
        while True:
            try:
                self._call(messages.DEV_REMOVE, messages.pack(name), "DM_DEV_REMOVE", name)
                return
            except KernelError as error:
                if error.number != EBUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)
