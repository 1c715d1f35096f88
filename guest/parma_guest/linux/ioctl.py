"""ioctl with a buffer, and how request numbers are made (include/uapi/asm-generic/ioctl.h)."""

from __future__ import annotations

import fcntl

from parma_guest.linux.errno import kernel_call

WRITE, READ = 1, 2


def request(direction: int, kind: int, number: int, size: int) -> int:
    """_IOC(direction, kind, number, size)."""
    return direction << 30 | size << 16 | kind << 8 | number


def ioctl(fd: int, number: int, buffer: bytearray, *, name: str, what: object = "") -> bytearray:
    """The buffer as the kernel left it. Raises KernelError."""
    with kernel_call(name, what):
        fcntl.ioctl(fd, number, buffer, True)  # noqa: FBT003 (fcntl takes it by position)
    return buffer
