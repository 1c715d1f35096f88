"""`binary://`: a program that gets both output streams (containerd's runtime/v2/README.md, "Logging").

It is started with descriptors 3 (output), 4 (errors) and 5 (ready: it closes it, or writes a byte, when it has come
up), and with two variables in its environment. At the end it gets SIGTERM, and SIGKILL when it is still there later.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from dataclasses import dataclass

from parma_api.channel.stream import FdStream
from parma_api.status import DeadlineExceededError, FailedPreconditionError
from parma_shim.io.fifo import Output
from parma_shim.io.target import Binary

READY_DEADLINE = 10.0
TERM_DEADLINE = 12.0
_STDOUT, _STDERR, _READY = 3, 4, 5
_LOWEST_FREE = 10


@dataclass(frozen=True, slots=True)
class LoggerIdentity:
    """What the program may know."""

    container_id: str
    namespace: str


class Logger:
    """The running program and our ends of its pipes."""

    def __init__(self, pid: int, stdout: Output, stderr: Output) -> None:
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self.stdout = stdout
        self.stderr = stderr

    async def close(self) -> None:
        """Ends the streams, then the program; returns when it is reaped."""
        self.stdout.close()
        self.stderr.close()
        if self._pidfd < 0:
            return
        pidfd, self._pidfd = self._pidfd, -1
        try:
            for number, wait in ((signal.SIGTERM, TERM_DEADLINE), (signal.SIGKILL, TERM_DEADLINE)):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, number)
                if await _readable(pidfd, wait):
                    break
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 -- WNOHANG
        finally:
            os.close(pidfd)


async def start_logger(target: Binary, identity: LoggerIdentity) -> Logger:
    """Starts it and waits until it is ready. Raises FailedPreconditionError, DeadlineExceededError."""
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as undo:
        ends = [_pipe(theirs, undo) for _ in range(2)]
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        ready = FdStream(ready_read, ready_read)
        theirs.callback(ready.abort)
        with contextlib.ExitStack() as writer:
            writer.callback(os.close, ready_write)
            given = [ends[0][0], ends[1][0], ready_write]
            logger = Logger(_spawn(target, identity, given), *(end[1] for end in ends))
        undo.pop_all()
        try:
            await _wait_ready(ready, target)
        except BaseException:
            await logger.close()
            raise
        return logger


def _pipe(theirs: contextlib.ExitStack, undo: contextlib.ExitStack) -> tuple[int, Output]:
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    theirs.callback(os.close, read_fd)
    output = Output(write_fd)
    undo.callback(output.close)
    return read_fd, output


async def _wait_ready(ready: FdStream, target: Binary) -> None:
    try:
        async with asyncio.timeout(READY_DEADLINE):
            said = await ready.read(1)
    except TimeoutError as error:
        raise DeadlineExceededError(
            f"stdio: {target.path} was not ready within {READY_DEADLINE:g} s"
        ) from error
    if target.must_signal and not said:
        raise FailedPreconditionError(f"stdio: {target.path} ended before it was ready")


def _spawn(target: Binary, identity: LoggerIdentity, given: list[int]) -> int:
    """The descriptors are first moved out of the way of 3, 4 and 5."""
    environment = {
        "CONTAINER_ID": identity.container_id,
        "CONTAINER_NAMESPACE": identity.namespace,
    }
    with contextlib.ExitStack() as stack:
        high = []
        for fd in given:
            high.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FREE))
            stack.callback(os.close, high[-1])
        wanted = zip(high, (_STDOUT, _STDERR, _READY), strict=True)
        try:
            return os.posix_spawn(
                target.path,
                [target.path, *target.arguments],
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in wanted],
                setpgroup=0,
                setsigdef=[signal.SIGPIPE, signal.SIGHUP],
            )
        except OSError as error:
            raise FailedPreconditionError(
                f"stdio: {target.path} cannot be started: {error.strerror}"
            ) from error


async def _readable(pidfd: int, seconds: float) -> bool:
    """Whether the process ended in time."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
    return True
