"""QEMU's process: without privileges, in the pod's cgroup, its death noticed at once.

posix_spawn runs `setpriv`, which drops everything, and `prlimit` (both util-linux), which becomes QEMU. No Python runs
between fork and exec, so threads of the shim (layer conversion) cannot hang the child, and the shim's pages are not
copied. Cgroup and OOM score the shim sets from outside, before the guest has touched its memory; limits it could not,
once the process is another user's, without CAP_SYS_RESOURCE.

The VM dies with its shim: PR_SET_PDEATHSIG is set by setpriv. The parent is the thread that spawned (prctl(2)), so
`spawn` insists on the main thread. A VM without its shim could serve nobody: its channel and its console are gone.
`delete` still kills by pid and start time, for a shim that was itself stopped before it could spawn as said here.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import resource
import shutil
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from parma_shim.vmm.config import Privileges
from parma_shim.vmm.errors import VmmError, VmmSetupError
from parma_shim.vmm.ring import STDERR_LIMIT, Ring

log = logging.getLogger(__name__)

OPEN_FILES = 4096
"""Two descriptors for each attached disk, and some."""
OOM_SCORE_ADJ = -998
"""Below containers, above the shim; what runtimes for VMs use. Lowering needs CAP_SYS_RESOURCE."""
_PARKED = 64
"""Descriptors on their way to a fixed number wait above this one."""


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """How a process ended: a status of its own, or a signal."""

    status: int
    signal: int | None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by {signal.Signals(self.signal).name}"
        return f"exit status {self.status}"


class Process:
    """A running program: `pid`, its stderr's last lines, and one way to wait for its end."""

    def __init__(self, pid: int, pidfd: int, stderr: int) -> None:
        self.pid = pid
        self.stderr = Ring(STDERR_LIMIT)
        self._pidfd = pidfd
        self._stderr_fd = stderr
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[ProcessExit] = self._loop.create_future()
        self._loop.add_reader(pidfd, self._reap)
        self._loop.add_reader(stderr, self._read_stderr)

    async def wait(self) -> ProcessExit:
        """The end; may be awaited by many."""
        return await asyncio.shield(self._exit)

    @property
    def exited(self) -> ProcessExit | None:
        """The end, if it has come."""
        return self._exit.result() if self._exit.done() else None

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Signals it by pidfd: never another process that got the number."""
        if not self._exit.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _reap(self) -> None:
        result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        assert result is not None
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        while self._read_stderr():
            pass
        self._close_stderr()
        killed = result.si_code != os.CLD_EXITED
        self._exit.set_result(
            ProcessExit(status=0, signal=result.si_status)
            if killed
            else ProcessExit(status=result.si_status, signal=None)
        )

    def _read_stderr(self) -> bool:
        if self._stderr_fd < 0:
            return False
        try:
            data = os.read(self._stderr_fd, 4096)
        except BlockingIOError:
            return False
        for line in self.stderr.feed(data):
            log.warning("qemu[%d]: %s", self.pid, line)
        if not data:
            self._close_stderr()
        return bool(data)

    def _close_stderr(self) -> None:
        if self._stderr_fd >= 0:
            self._loop.remove_reader(self._stderr_fd)
            os.close(self._stderr_fd)
            self._stderr_fd = -1


def spawn(
    argv: Sequence[str],
    descriptors: Mapping[int, int],
    *,
    privileges: Privileges | None = None,
    cgroups: Sequence[Path] = (),
) -> Process:
    """Starts `argv` with `descriptors` (number there -> descriptor here), an empty environment and no signal ignored.

    Raises VmmSetupError when a program is missing or a cgroup cannot be joined, VmmError when the kernel refuses.
    """
    if threading.current_thread() is not threading.main_thread():
        raise VmmError(
            "a VM must be started from the shim's main thread: the kernel ties its life to that thread"
        )
    words = [
        _tool("setpriv"),
        *_setpriv_options(privileges),
        "--",
        _tool("prlimit"),
        *_limits(),
        "--",
        *argv,
    ]
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.set_blocking(write, True)
        pid = _posix_spawn(words, {**descriptors, 2: write})
        try:
            _settle(pid, cgroups)
            pidfd = os.pidfd_open(pid)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    return Process(pid, pidfd, read)


def _tool(name: str) -> str:
    found = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
    if found is None:
        raise VmmSetupError(
            f"{name} is missing, and QEMU must not run with privileges: install util-linux"
        )
    return found


def _limits() -> list[str]:
    """No core dump of a guest's memory; descriptors as far as the administrator's hard limit goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    return ["--core=0:0", f"--nofile={files}:{files}"]


def _setpriv_options(privileges: Privileges | None) -> list[str]:
    options = ["--no-new-privs", "--pdeathsig", "SIGKILL"]
    if privileges is None:
        return options
    groups = ",".join(str(group) for group in privileges.groups)
    return [
        *options,
        f"--reuid={privileges.uid}",
        f"--regid={privileges.gid}",
        f"--groups={groups}" if groups else "--clear-groups",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--bounding-set=-all",
    ]


def _posix_spawn(words: list[str], descriptors: Mapping[int, int]) -> int:
    with contextlib.ExitStack() as parked:
        actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        ]
        for number, fd in descriptors.items():
            copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _PARKED)
            parked.callback(os.close, copy)
            actions.append((os.POSIX_SPAWN_DUP2, copy, number))
        try:
            return os.posix_spawn(
                words[0],
                words,
                {},
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=[
                    s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)
                ],
            )
        except OSError as error:
            raise VmmError(f"QEMU cannot be started: {error.strerror}") from error


def _settle(pid: int, cgroups: Sequence[Path]) -> None:
    for group in cgroups:
        try:
            (group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise VmmSetupError(
                f"QEMU cannot join the pod's cgroup {group}: {error.strerror}"
            ) from error
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(OOM_SCORE_ADJ))
