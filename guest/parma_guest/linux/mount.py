"""Mounting: mount(2), umount2(2), and the newer calls that take descriptors (fsopen, fsconfig, move_mount)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from parma_guest.linux.errno import KernelError
from parma_guest.linux.libc import (
    AT_FDCWD,
    SYS_FSCONFIG,
    SYS_FSMOUNT,
    SYS_FSOPEN,
    SYS_MOUNT,
    SYS_MOVE_MOUNT,
    SYS_OPEN_TREE,
    SYS_UMOUNT2,
    encode,
    syscall,
)

# include/uapi/linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
MOUNT_ATTR_NOATIME = 0x10
OPEN_TREE_CLONE = 1
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises KernelError."""
    syscall(
        "mount",
        SYS_MOUNT,
        encode(source),
        encode(target),
        fstype.encode() if fstype else None,
        flags,
        data.encode() if data else None,
        what=f"{source} on {target}",
    )


def bind(source: str, target: str) -> None:
    """Make what is at `source` visible at `target` as well."""
    mount(source, target, "", MS_BIND)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2) of the mount at `target` itself, never through a link. Raises KernelError (EBUSY: in use)."""
    syscall("umount", SYS_UMOUNT2, encode(target), flags | UMOUNT_NOFOLLOW, what=target)


def umount_of(fd: int) -> None:
    """Take the mount whose root is `fd` away, with what is mounted on it, lazily. Raises KernelError (EINVAL)."""
    path = f"/proc/thread-self/fd/{fd}"
    syscall("umount", SYS_UMOUNT2, encode(path), MNT_DETACH, what=path)


def open_tree(path: str, *, clone: bool = False, recursive: bool = False) -> int:
    """A descriptor of the mount at `path`; with `clone` of a detached copy."""
    flags = os.O_CLOEXEC | (OPEN_TREE_CLONE if clone else 0) | (_AT_RECURSIVE if recursive else 0)
    return syscall("open_tree", SYS_OPEN_TREE, AT_FDCWD, encode(path), flags, what=path)


def move_mount(mount_fd: int, target: str) -> None:
    """Attach a detached mount at `target`."""
    syscall(
        "move_mount",
        SYS_MOVE_MOUNT,
        mount_fd,
        b"",
        AT_FDCWD,
        encode(target),
        _MOVE_MOUNT_F_EMPTY_PATH,
        what=target,
    )


def mount_configured(
    fstype: str, options: Sequence[tuple[str, str | None]], target: str, attributes: int = 0
) -> None:
    """Mount by fsopen: no limit of one page on the options. Raises KernelError with what the kernel logged."""
    with _closing(
        syscall("fsopen", SYS_FSOPEN, fstype.encode(), _FSOPEN_CLOEXEC, what=fstype)
    ) as context:
        try:
            for key, value in options:
                _configure(context, key, value)
            syscall("fsconfig", SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        except KernelError as error:
            raise KernelError(
                f"mount of {fstype}", f"on {target}", error.number, _log(context)
            ) from error
        mounted = syscall("fsmount", SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)
    with _closing(mounted):
        move_mount(mounted, target)


def _configure(context: int, key: str, value: str | None) -> None:
    command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
    text = None if value is None else value.encode()
    syscall(
        "fsconfig", SYS_FSCONFIG, context, command, key.encode(), text, 0, what=f"{key}={value}"
    )


def _log(context: int) -> str:
    """What the file system said about its options; one message for each read (Documentation: fsopen)."""
    lines: list[str] = []
    with suppress(OSError):
        while len(lines) < 8 and (message := os.read(context, 512)):
            lines.append(message.decode(errors="replace").strip())
    return " / ".join(lines)


@contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
