"""Disks: found by SCSI address through pyudev, waited for, and asked for their size.

pyudev costs an emulated guest a second of import and of `ldconfig`: the agent calls `prepare` while its policy engine
starts, long after its first answer.
"""

from __future__ import annotations

import errno
import functools
import mmap
import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from parma_api.status import DeadlineExceededError, InternalError, InvalidArgumentError
from parma_guest.linux.errno import KernelError, kernel_call
from parma_guest.linux.ioctl import ioctl

_BLKROGET = 0x125E
_BLKGETSIZE64 = 0x80081272
_MAX_CONTROLLER = 3
_MAX_LUN = 16383
SECTOR = 512


@dataclass(frozen=True, slots=True, order=True)
class ScsiAddress:
    """Where the host says that it plugged a disk in. Raises InvalidArgumentError out of range."""

    controller: int
    lun: int

    def __post_init__(self) -> None:
        if not (0 <= self.controller <= _MAX_CONTROLLER and 0 <= self.lun <= _MAX_LUN):
            raise InvalidArgumentError(f"SCSI address {self} is out of range")

    def __str__(self) -> str:
        return f"{self.controller}:0:0:{self.lun}"


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk as the guest sees it; `number` is `major:minor`, which names it in device-mapper tables."""

    node: str
    number: str


def find_disk(address: ScsiAddress, deadline: float) -> Disk:
    """The disk at `address`, waited for until time.monotonic() is `deadline`. Blocks.

    Raises DeadlineExceededError (the host has not plugged it in), KernelError (it cannot be opened).
    """
    pyudev, context = _pyudev()
    if (disk := _look(pyudev, context, address)) is not None:
        return disk
    monitor = pyudev.Monitor.from_netlink(context, source="kernel")  # no udevd in the guest
    monitor.filter_by(subsystem="block")
    monitor.start()  # before the next look, so that nothing falls between the two
    while True:
        if (disk := _look(pyudev, context, address)) is not None:
            return disk
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceededError(
                f"no disk at SCSI address {address}: plug it in before it is mounted"
            )
        monitor.poll(timeout=min(left, 0.5))


def prepare() -> None:
    """Do ahead what the first search for a disk would otherwise do. Raises InternalError."""
    _pyudev()


@functools.cache
def _pyudev() -> tuple[Any, Any]:
    """The module and its context, made once: it asks `ldconfig` for libudev. Raises InternalError."""
    try:
        import pyudev

        return pyudev, pyudev.Context()
    except ImportError as error:
        raise InternalError(f"devices cannot be found: {error}") from error


def _look(pyudev: Any, context: Any, address: ScsiAddress) -> Disk | None:
    """Straight to the address: walking all disks of an image with 127 layers takes half a second for each."""
    host = _host_number(context, address.controller)
    try:
        unit = pyudev.Devices.from_name(context, "scsi", f"{host}:0:0:{address.lun}")
        for device in context.list_devices(subsystem="block", DEVTYPE="disk", parent=unit):
            if device.device_node is not None and _is_live(str(device.device_node)):
                number = device.device_number
                return Disk(str(device.device_node), f"{os.major(number)}:{os.minor(number)}")
    except pyudev.DeviceNotFoundError:
        return None
    return None


def _is_live(node: str) -> bool:
    """Whether the disk can be opened yet.

    device_add_disk (block/genhd.c) shows a disk in sysfs and devtmpfs before bdev_add makes it one that opens; its
    uevent comes after both. Who looks in between gets ENXIO, or ENOENT from a devtmpfs that is a moment behind.
    """
    try:
        with kernel_call("open", node):
            os.close(os.open(node, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
    except KernelError as error:
        if error.number in (errno.ENXIO, errno.ENOENT):
            return False
        raise
    return True


def _host_number(context: Any, controller: int) -> int:
    """The kernel's number of the `controller`th SCSI host; -1 if there are fewer."""
    hosts = sorted(
        int(device.sys_name.removeprefix("host"))
        for device in context.list_devices(subsystem="scsi_host")
    )
    return hosts[controller] if controller < len(hosts) else -1


@contextmanager
def opened(node: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor of the block device `node`. Raises KernelError, InvalidArgumentError if it is none."""
    with kernel_call("open", node):
        fd = os.open(node, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if not stat.S_ISBLK(os.fstat(fd).st_mode):
            raise InvalidArgumentError(f"{node} is no block device")
        yield fd
    finally:
        os.close(fd)


def size_of(fd: int) -> int:
    """Bytes of an open block device."""
    answer = ioctl(fd, _BLKGETSIZE64, bytearray(8), name="BLKGETSIZE64")
    return int(struct.unpack("=Q", answer)[0])


def is_read_only(fd: int) -> bool:
    """Whether the kernel refuses writes to an open block device."""
    answer = ioctl(fd, _BLKROGET, bytearray(4), name="BLKROGET")
    return any(answer)


def read_exactly(fd: int, offset: int, size: int, what: str) -> bytes:
    """Bytes of an open device. Raises KernelError (EIO: verity or integrity refused), InvalidArgumentError (end)."""
    data = b""
    while len(data) < size:
        with kernel_call("read", f"{what} at byte {offset + len(data)}"):
            piece = os.pread(fd, size - len(data), offset + len(data))
        if not piece:
            raise InvalidArgumentError(f"{what} ends at byte {offset + len(data)}")
        data += piece
    return data


def zero_first_block(node: str, size: int = 4096) -> None:
    """Overwrite the first block, past the page cache: what was there cannot be read, so it is not read first."""
    with (
        opened(node, os.O_WRONLY | os.O_DIRECT) as fd,
        mmap.mmap(-1, size) as page,
        kernel_call("write", f"first block of {node}"),
    ):
        if os.pwrite(fd, page, 0) != size:
            raise InvalidArgumentError(f"{node} took less than one block")


def read_first_block(node: str, size: int = 4096) -> bytes:
    """The first block as it is on the disk now, past the page cache."""
    with (
        opened(node, os.O_RDONLY | os.O_DIRECT) as fd,
        mmap.mmap(-1, size) as page,
        kernel_call("read", f"first block of {node}"),
    ):
        if os.preadv(fd, [page], 0) != size:
            raise InvalidArgumentError(f"{node} is shorter than one block")
        return bytes(page)


def drop_cache(fd: int) -> None:
    """Forget what the page cache holds of an open device (BLKFLSBUF)."""
    ioctl(fd, 0x1261, bytearray(4), name="BLKFLSBUF")
