"""One `start` or `delete` of a group at a time, and whether somebody serves it.

The lock's file may be removed with the group's folder by whoever holds it; who waited for it then notices that the name
means another file, and begins again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator

from parma_api.status import UnavailableError
from parma_shim.lifecycle.places import Group

CONNECT_TIMEOUT = 0.1
_RETRY = 0.005


@contextlib.contextmanager
def locked(group: Group, timeout: float) -> Iterator[None]:
    """The group's folder exists and is ours while inside. Raises UnavailableError after `timeout` seconds."""
    until = time.monotonic() + timeout
    fd = _open(group)
    try:
        while not _take(fd) or not _is_current(fd, group.lock):
            if not _is_current(fd, group.lock):
                os.close(fd)
                fd = _open(group)
                continue
            if time.monotonic() > until:
                raise UnavailableError(f"{group.lock} is held by another start or delete")
            time.sleep(_RETRY)
        yield
    finally:
        os.close(fd)


def is_served(path: str) -> bool:
    """Whether somebody accepts connections at a socket. A full backlog is somebody too."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(CONNECT_TIMEOUT)
        try:
            probe.connect(path)
        except OSError as error:
            return error.errno == errno.EAGAIN or isinstance(error, TimeoutError)
        return True


def _open(group: Group) -> int:
    while True:
        os.makedirs(os.path.dirname(group.directory), mode=0o711, exist_ok=True)  # noqa: PTH103, PTH120
        with contextlib.suppress(FileExistsError):
            os.mkdir(group.directory, 0o700)  # noqa: PTH102
        try:
            return os.open(group.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # removed in between


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_current(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))  # noqa: PTH116
    except FileNotFoundError:
        return False
