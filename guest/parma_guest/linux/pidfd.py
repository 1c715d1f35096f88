"""Processes by descriptor: no signal ever reaches a process that took over a number."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from typing import Self

from parma_api.status import DeadlineExceededError, InternalError
from parma_guest.linux.errno import KernelError, kernel_call
from parma_guest.linux.libc import SYS_PIDFD_SEND_SIGNAL, syscall

SPAWNING = threading.Lock()
"""Held while a child is started and entered in CHILDREN; a reaper holds it while it looks for orphans."""
CHILDREN: set[int] = set()
"""Children whose starter waits for them by number: the reaper of PID 1 leaves these alone."""


class Pidfd:
    """A process, held by descriptor. A context manager."""

    def __init__(self, pid: int) -> None:
        """Raises KernelError (ESRCH) if there is none."""
        with kernel_call("pidfd_open", pid):
            self._fd = os.pidfd_open(pid)
        self.pid = pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def fileno(self) -> int:
        """Readable once the process has ended."""
        return self._fd

    def send(self, number: int) -> None:
        """pidfd_send_signal(2)."""
        syscall(
            "pidfd_send_signal", SYS_PIDFD_SEND_SIGNAL, self._fd, number, None, 0, what=self.pid
        )

    def ended(self, timeout: float) -> bool:
        """Whether the process ends within `timeout` seconds."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(max(0, int(timeout * 1000))))


def run(arguments: list[str], deadline: float) -> None:
    """Run a program to its end, without input, output to our own. Blocks.

    `deadline`: time.monotonic() at which it is killed. Raises DeadlineExceededError, InternalError (its status).
    """
    with SPAWNING, kernel_call("posix_spawn", arguments[0]):
        pid = os.posix_spawn(
            arguments[0],
            arguments,
            {"PATH": "/usr/sbin:/usr/bin", "LANG": "C"},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            ],
            setpgroup=0,
        )
        CHILDREN.add(pid)
    with Pidfd(pid) as process:
        late = not process.ended(deadline - time.monotonic())
        if late:
            process.send(signal.SIGKILL)
            if not process.ended(5.0):
                raise DeadlineExceededError(
                    f"{arguments[0]} hangs in the kernel and cannot be killed"
                )
        status = _reap(pid)
    if late:
        raise DeadlineExceededError(f"{arguments[0]} did not end in time and was killed")
    if status != 0:
        raise InternalError(f"{' '.join(arguments)}: failed with status {status}")


def _reap(pid: int) -> int:
    """The exit status."""
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError as error:
        raise KernelError("waitpid", pid, error.errno or 0, "something else reaped it") from error
    finally:
        CHILDREN.discard(pid)
    return os.waitstatus_to_exitcode(status)
