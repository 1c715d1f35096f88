"""flock on files that may be removed by whoever holds the lock. Source: flock(2).

A lock belongs to the open file description: two threads exclude each other as two processes do, a descriptor passed to
QEMU keeps the lock, and the kernel lets go when the last copy is closed, however its holder ended.
"""

from __future__ import annotations

import enum
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Wait(enum.Enum):
    """What to do about a lock that somebody else has."""

    YES = 0
    NO = fcntl.LOCK_NB


@contextmanager
def locked(path: Path, wait: Wait) -> Iterator[bool]:
    """The lock file `path` is ours while inside, and gone afterwards. Gives False if, with Wait.NO, it is another's."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if not take(fd, fcntl.LOCK_EX, wait):
                yield False
                return
            if is_current(fd, path):
                try:
                    yield True
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(fd)


def take(fd: int, kind: int, wait: Wait) -> bool:
    """Whether the lock (LOCK_SH or LOCK_EX) was had."""
    try:
        fcntl.flock(fd, kind | wait.value)
    except BlockingIOError:
        return False
    return True


def is_current(fd: int, path: Path) -> bool:
    """Whether `path` still names the file that is open."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False
