"""Running a function inside a network namespace.

setns(2) moves one thread, so the function gets a thread of its own that ends with it: no thread of a pool is ever left
in a pod's namespace. Sockets and programs made there stay there.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from parma_shim.net.errors import NetworkError, NetworkSetupError

CLONE_NEWNET = 0x40000000
NS_GET_NSTYPE = 0xB703
"""include/uapi/linux/nsfs.h; any other file answers ENOTTY."""

T = TypeVar("T")


def open_namespace(path: Path) -> int:
    """A descriptor of the namespace at `path`, which outlives the path. Raises NetworkSetupError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NetworkSetupError(
            f"the pod's network namespace {path} cannot be opened: {error.strerror}"
        ) from error
    if not _is_network_namespace(fd):
        os.close(fd)
        raise NetworkSetupError(f"{path} is no network namespace")
    return fd


def is_own_namespace(fd: int) -> bool:
    """Whether it is the one that the shim itself is in: the host's network."""
    mine = Path("/proc/thread-self/ns/net").stat()
    theirs = os.fstat(fd)
    return (mine.st_dev, mine.st_ino) == (theirs.st_dev, theirs.st_ino)


async def inside(fd: int, work: Callable[[], T]) -> T:
    """What `work` returns when it runs in the namespace `fd`. Raises what it raises, and NetworkError."""
    future: Future[T] = Future()
    threading.Thread(target=_enter_and_run, args=(fd, work, future), name="netns").start()
    return await asyncio.wrap_future(future)


def _enter_and_run(fd: int, work: Callable[[], T], future: Future[T]) -> None:
    try:
        _setns(fd)
        result = work()
    except BaseException as error:  # noqa: BLE001 -- it is raised in the awaiting task
        future.set_exception(error)
    else:
        future.set_result(result)


def _setns(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise NetworkError(f"the pod's network namespace cannot be entered: {os.strerror(number)}")


def _is_network_namespace(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False
