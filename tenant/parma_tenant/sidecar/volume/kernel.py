"""System calls of a privileged container that Python has no function for (linux/x86_64), and their errors."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Any, Final

from parma_api.status import InternalError

# arch/x86/entry/syscalls/syscall_64.tbl
_IOCTL, _MOUNT, _UMOUNT2, _ADD_KEY, _KEYCTL = 16, 165, 166, 248, 250
# include/uapi/linux/mount.h
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOATIME: Final = 1024
_UMOUNT_NOFOLLOW: Final = 8
_MNT_DETACH: Final = 2
_THREAD_KEYRING: Final = -1
_KEYCTL_UNLINK: Final = 9

_libc: Any = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class KernelError(InternalError):
    """A call failed; `number` is the errno."""

    def __init__(self, call: str, what: object, number: int, hint: str = "") -> None:
        rest = f": {hint}" if hint else ""
        super().__init__(f"{call} {what}: {os.strerror(number)}{rest}")
        self.number = number


@contextlib.contextmanager
def kernel_call(call: str, what: object, hint: str = "") -> Iterator[None]:
    """Turns OSError into KernelError."""
    try:
        yield
    except OSError as error:
        raise KernelError(call, what, error.errno or 0, hint) from error


def _syscall(name: str, what: object, number: int, *arguments: object) -> int:
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = _libc.syscall(ctypes.c_long(number), *converted)
    if result < 0:
        raise KernelError(name, what, ctypes.get_errno())
    return int(result)


def ioctl(path: str, fd: int, number: int, argument: bytearray | int, name: str) -> None:
    """An ioctl; a bytearray is written back. Raises KernelError.

    By ctypes: Python's own holds the interpreter's lock while the buffer is a large one, and what the kernel waits for
    may be a block that another thread of this process serves.
    """
    if isinstance(argument, int):
        _syscall(name, path, _IOCTL, fd, number, argument)
        return
    buffer = (ctypes.c_char * len(argument)).from_buffer(argument)
    _syscall(name, path, _IOCTL, fd, number, ctypes.byref(buffer))


def mount(node: str, target: str, fstype: str, flags: int, options: str) -> None:
    """mount(2). Raises KernelError."""
    _syscall(
        "mount", f"{node} on {target}", _MOUNT,
        node.encode(), os.fsencode(target), fstype.encode(), flags, options.encode() or None,
    )  # fmt: skip


def unmount(target: str, *, lazily: bool = False) -> None:
    """umount2(2) of the mount at `target` itself. Raises KernelError (EBUSY: in use)."""
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazily else 0)
    _syscall("umount", target, _UMOUNT2, os.fsencode(target), flags)


def erase(key: bytearray) -> None:
    """Overwrite in place. Best effort: what copies the interpreter made is unknown."""
    key[:] = bytes(len(key))


@contextlib.contextmanager
def logon_key(description: str, key: bytearray) -> Iterator[None]:
    """The key in this thread's keyring while inside; erased and unlinked afterwards. Raises KernelError.

    A table must be loaded by the same thread: another one gets ENOKEY. A mapping that was loaded keeps its own copy.
    """
    serial = 0
    try:
        buffer = (ctypes.c_char * len(key)).from_buffer(key)
        serial = _syscall(
            "add_key", description, _ADD_KEY,
            b"logon", description.encode(), ctypes.byref(buffer), len(key), _THREAD_KEYRING,
        )  # fmt: skip
        del buffer
        erase(key)
        yield
    finally:
        erase(key)
        if serial:
            _syscall("keyctl", description, _KEYCTL, _KEYCTL_UNLINK, serial, _THREAD_KEYRING)
