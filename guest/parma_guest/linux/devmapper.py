"""Device-mapper by ioctl (include/uapi/linux/dm-ioctl.h), without libdevmapper and without udev."""

from __future__ import annotations

import os
import struct
import time
from contextlib import suppress
from errno import EBUSY

from parma_api.status import DataLossError
from parma_guest.linux.dm_tables import Target, same_table
from parma_guest.linux.errno import KernelError, kernel_call
from parma_guest.linux.ioctl import ioctl

CONTROL = "/dev/mapper/control"
_DEV_CREATE, _DEV_REMOVE, _DEV_SUSPEND, _DEV_STATUS, _TABLE_LOAD, _TABLE_STATUS = 3, 4, 6, 7, 9, 12
_READONLY = 1
_STATUS_TABLE = 1 << 4
_SECURE_DATA = 1 << 15
_BUFFER_FULL = 1 << 8
# version[3], data_size, data_start, target_count, open_count, flags, event_nr, padding, dev, name, uuid, padding
_HEADER = struct.Struct("=3I I I I i I I 4x Q 128s 129s 7x")
# sector_start, length, status, next, target_type
_SPEC = struct.Struct("=QQiI16s")
_BUFFER = 16384
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


def pack(
    name: str, flags: int = 0, target: Target | None = None, *, size: int = _BUFFER
) -> bytearray:
    """The ioctl's buffer: the header, and the one line of a table."""
    payload = b"" if target is None else _pack_target(target)
    total = max(size, _HEADER.size + len(payload))
    count = 0 if target is None else 1
    header = _HEADER.pack(4, 0, 0, total, _HEADER.size, count, 0, flags, 0, 0, name.encode(), b"")
    return bytearray(header + payload).ljust(total, b"\0")


def _pack_target(target: Target) -> bytes:
    parameters = target.parameters.encode() + b"\0"
    parameters += bytes(-len(parameters) % 8)
    size = _SPEC.size + len(parameters)
    return _SPEC.pack(0, target.length, 0, size, target.kind.encode()) + parameters


def unpack_device(buffer: bytes | bytearray) -> tuple[int, int]:
    """Major and minor in the header."""
    device = _HEADER.unpack_from(buffer)[9]
    return (device >> 8) & 0xFFF, device & 0xFF | (device >> 12) & 0xFFF00


def unpack_targets(buffer: bytes | bytearray) -> list[Target]:
    """The lines in an answer of TABLE_STATUS, each at its own offset from the first."""
    fields = _HEADER.unpack_from(buffer)
    start, count = fields[4], fields[5]
    found: list[Target] = []
    at = start
    for _ in range(count):
        _, length, _, following, kind = _SPEC.unpack_from(buffer, at)
        text = bytes(buffer[at + _SPEC.size :]).split(b"\0", 1)[0]
        found.append(Target(length, kind.rstrip(b"\0").decode(), text.decode()))
        at = start + following
    return found


class DeviceMapper:
    """The kernel's device-mapper. Every call raises KernelError."""

    def __init__(self, control: str = CONTROL) -> None:
        self._control = control

    def _call(self, number: int, buffer: bytearray, name: str, what: str) -> bytearray:
        with kernel_call("open", self._control, "is the module dm_mod loaded?"):
            fd = os.open(self._control, os.O_RDWR | os.O_CLOEXEC)
        try:
            return ioctl(fd, 0xC138FD00 | number, buffer, name=name, what=what)
        finally:
            os.close(fd)

    def create(self, name: str) -> str:
        """A device without a table; its node."""
        answer = self._call(_DEV_CREATE, pack(name), "DM_DEV_CREATE", name)
        return f"/dev/dm-{unpack_device(answer)[1]}"

    def load(self, name: str, target: Target, *, read_only: bool) -> None:
        """Give the device a table and make it live; the kernel wipes its copy of the request."""
        flags = _SECURE_DATA | (_READONLY if read_only else 0)
        self._call(_TABLE_LOAD, pack(name, flags, target), "DM_TABLE_LOAD", target.describe())
        self._call(_DEV_SUSPEND, pack(name, _READONLY if read_only else 0), "DM_DEV_SUSPEND", name)

    def node(self, name: str) -> str:
        """The node of the device of that name; without udev nothing appears beneath /dev/mapper."""
        answer = self._call(_DEV_STATUS, pack(name), "DM_DEV_STATUS", name)
        return f"/dev/dm-{unpack_device(answer)[1]}"

    def number(self, name: str) -> str:
        """`major:minor` of the device of that name."""
        major, minor = unpack_device(self._call(_DEV_STATUS, pack(name), "DM_DEV_STATUS", name))
        return f"{major}:{minor}"

    def table(self, name: str) -> list[Target]:
        """The live table."""
        answer = self._call(_TABLE_STATUS, pack(name, _STATUS_TABLE), "DM_TABLE_STATUS", name)
        return unpack_targets(answer)

    def status(self, name: str) -> str:
        """The target's status line; of verity `V`, or `C` once it has met a corrupt block."""
        answer = self._call(_TABLE_STATUS, pack(name), "DM_TABLE_STATUS", name)
        targets = unpack_targets(answer)
        return targets[0].parameters if targets else ""

    def remove(self, name: str, *, patience: float = 2.0) -> None:
        """Remove the device; one that is still open for a moment is tried again for `patience` seconds."""
        deadline = time.monotonic() + patience
        while True:
            try:
                self._call(_DEV_REMOVE, pack(name), "DM_DEV_REMOVE", name)
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
