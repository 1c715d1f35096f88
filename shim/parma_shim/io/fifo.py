"""Opening FIFOs and files so that nobody's absence blocks or breaks us (fifo(7)).

Output: a write end, once the client reads, and a read end beside it until we close: while containerd is down nobody
reads, and writing must wait then, not fail. Input: a read end, and a write end of ours, so that the process sees the
end only when the client has asked for it (CloseIO) and is gone.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
import sys
import termios
import time

from parma_api.channel.stream import FdStream
from parma_api.status import FailedPreconditionError, NotFoundError

OPEN_DEADLINE = 30.0
_FIRST_WAIT, _LONGEST_WAIT = 0.001, 0.05


class Output:
    """The writing side of one FIFO or file."""

    def __init__(self, write_fd: int, read_fd: int | None = None) -> None:
        self._stream = FdStream(write_fd, write_fd)
        self._read_fd = read_fd

    async def write(self, data: bytes) -> None:
        """All of it, waiting while the pipe is full. Raises StreamClosedError."""
        await self._stream.write(data)

    async def emptied(self) -> None:
        """Returns when the client has taken all that is in the FIFO, or this is closed; at once for a file.

        With its last end the FIFO loses what is in it: after a restart of containerd that was a process's last words.
        """
        wait = _FIRST_WAIT
        while self._read_fd is not None and _unread(self._read_fd):
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    def close(self) -> None:
        """Lets go of both ends: the client sees the end. Idempotent."""
        self._stream.abort()
        if self._read_fd is not None:
            os.close(self._read_fd)
            self._read_fd = None


class Input:
    """The reading side of a FIFO."""

    def __init__(self, read_fd: int, write_fd: int | None) -> None:
        self._stream = FdStream(read_fd, read_fd)
        self._write_fd = write_fd

    async def read(self) -> bytes:
        """b"" at the end: no writer is left, ours included. Raises StreamClosedError."""
        return await self._stream.read()

    def release_writer(self) -> None:
        """CloseIO: from now on the client's writers alone keep the stream open. Idempotent."""
        if self._write_fd is not None:
            os.close(self._write_fd)
            self._write_fd = None

    def close(self) -> None:
        """Idempotent."""
        self.release_writer()
        self._stream.abort()


async def open_output(path: str, deadline: float = OPEN_DEADLINE) -> Output:
    """Waits for a reader of a FIFO. Raises NotFoundError, FailedPreconditionError."""
    if not _is_fifo(path):
        return Output(_open(path, os.O_WRONLY | os.O_APPEND))
    write_fd = await _open_when_read(path, deadline)
    try:
        return Output(write_fd, _open(path, os.O_RDONLY | os.O_NONBLOCK))
    except BaseException:
        os.close(write_fd)
        raise


def open_input(path: str) -> Input:
    """Waits for nobody. Raises NotFoundError, FailedPreconditionError."""
    is_fifo = _is_fifo(path)
    read_fd = _open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return Input(read_fd, _open(path, os.O_WRONLY | os.O_NONBLOCK) if is_fifo else None)
    except BaseException:
        os.close(read_fd)
        raise


def open_log(path: str) -> Output:
    """A log file, made with its folders when missing. Raises NotFoundError, FailedPreconditionError."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)  # noqa: PTH103, PTH120
    except OSError as error:
        raise FailedPreconditionError(f"{path} cannot be made: {error.strerror}") from error
    return Output(_open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644))


def _unread(fd: int) -> int:
    """Bytes in a pipe (ioctl_fionread(2))."""
    count = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)


async def _open_when_read(path: str, deadline: float) -> int:
    """ENXIO says that nobody reads yet."""
    until = time.monotonic() + deadline
    wait = _FIRST_WAIT
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise _refusal(path, error) from error
        if time.monotonic() > until:
            raise FailedPreconditionError(f"{path}: nobody has read it for {deadline:g} s")
        await asyncio.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)


def _is_fifo(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)  # noqa: PTH116
    except OSError as error:
        raise _refusal(path, error) from error


def _open(path: str, flags: int, mode: int = 0) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY, mode)
    except OSError as error:
        raise _refusal(path, error) from error


def _refusal(path: str, error: OSError) -> FailedPreconditionError | NotFoundError:
    if error.errno == errno.ENOENT:
        return NotFoundError(f"stdio: {path} is not there: not found")
    return FailedPreconditionError(f"stdio: {path} cannot be opened: {error.strerror}")
