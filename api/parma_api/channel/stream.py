"""A byte stream as its users see it, and the two kinds that the kernel gives: sockets, and other descriptors."""

from __future__ import annotations

import abc
import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

from parma_api.status import UnavailableError

Data: TypeAlias = bytes | bytearray | memoryview

CHUNK: Final = 65536
"""Bytes that a read takes at most unless told otherwise."""
_MAX_PIECES: Final = 1024
"""Of one system call: IOV_MAX, limits.h."""


class StreamClosedError(UnavailableError):
    """The stream was aborted, on this side or the other."""


class ByteStream(Protocol):
    """Both directions of an ordered, reliable stream of bytes. One reader and one writer at a time."""

    async def read(self, n: int = CHUNK) -> bytes:
        """1 to n bytes; b"" once the peer has finished and on this side after `abort`. Raises StreamClosedError."""
        ...

    async def write(self, data: Data) -> None:
        """All of data, waiting for room. When cancelled, part may have been written. Raises StreamClosedError."""
        ...

    async def finish(self) -> None:
        """Half close: nothing more will be written, all that was is delivered. Idempotent."""
        ...

    def abort(self) -> None:
        """Drop both directions at once; wakes a pending read and write. Idempotent."""
        ...


class Descriptor(abc.ABC):
    """What both kinds share: waiting for readiness, and closing once no operation is pending.

    The `*_now` methods serve a driver that never waits in one place (the multiplexer): they cost no turn of the loop.
    """

    def __init__(self) -> None:
        self._aborted = False
        self._finished = False
        self._pending: set[asyncio.Future[None]] = set()

    @abc.abstractmethod
    def read_fileno(self) -> int:
        """What to wait on before reading."""

    @abc.abstractmethod
    def write_fileno(self) -> int:
        """What to wait on before writing."""

    @abc.abstractmethod
    def _recv(self, n: int) -> bytes:
        """One system call. Raises OSError."""

    @abc.abstractmethod
    def _gather(self, pieces: Sequence[Data]) -> int:
        """One system call for at most _MAX_PIECES; returns the bytes written. Raises OSError."""

    @abc.abstractmethod
    def _release(self) -> None:
        """Close."""

    def read_now(self, n: int) -> bytes | None:
        """As `read`, but None where it would wait."""
        if self._aborted:
            return b""
        try:
            return self._recv(n)
        except BlockingIOError:
            return None
        except OSError as error:
            raise StreamClosedError(f"stream lost while reading: {error.strerror}") from error

    def write_now(self, pieces: Sequence[Data]) -> Sequence[Data]:
        """Write without copying; returns what could not be written without waiting. Raises StreamClosedError."""
        while pieces:
            if self._aborted or self._finished:
                raise StreamClosedError("stream closed")
            try:
                written = self._gather(pieces[:_MAX_PIECES])
            except BlockingIOError:
                break
            except OSError as error:
                raise StreamClosedError(f"stream lost while writing: {error.strerror}") from error
            pieces = _after(pieces, written)
        return pieces

    async def read(self, n: int = CHUNK) -> bytes:
        """As ByteStream says."""
        while (data := self.read_now(n)) is None:
            loop = asyncio.get_running_loop()
            await self._ready(loop.add_reader, loop.remove_reader, self.read_fileno())
        return data

    async def write(self, data: Data) -> None:
        """As ByteStream says."""
        left = self.write_now([data])
        while left:
            loop = asyncio.get_running_loop()
            await self._ready(loop.add_writer, loop.remove_writer, self.write_fileno())
            left = self.write_now(left)

    def abort(self) -> None:
        """As ByteStream says."""
        if self._aborted:
            return
        self._aborted = True
        for future in self._pending:
            _wake(future)
        self._release_when_idle()

    async def _ready(
        self, register: Callable[..., object], remove: Callable[[int], object], fd: int
    ) -> None:
        """Wait until fd is ready or the stream aborted."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        register(fd, _wake, future)
        self._pending.add(future)
        try:
            await future
        finally:
            self._pending.discard(future)
            remove(fd)
            self._release_when_idle()

    def _release_when_idle(self) -> None:
        """A descriptor closed under a registered waiter could be another file's by the time it fires."""
        if self._aborted and not self._pending:
            self._release()


def _after(pieces: Sequence[Data], written: int) -> Sequence[Data]:
    """What is left when so many bytes are written."""
    left: list[Data] = []
    for piece in pieces:
        if written >= len(piece):
            written -= len(piece)
        else:
            left.append(memoryview(piece)[written:] if written else piece)
            written = 0
    return left


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class SocketStream(Descriptor):
    """A connected stream socket (unix, vsock), which it owns from now on."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        sock.settimeout(0)
        self.socket: Final = sock

    def read_fileno(self) -> int:
        return self.socket.fileno()

    def write_fileno(self) -> int:
        return self.socket.fileno()

    def _recv(self, n: int) -> bytes:
        return self.socket.recv(n)

    def _gather(self, pieces: Sequence[Data]) -> int:
        return self.socket.sendmsg(pieces)

    async def finish(self) -> None:
        if self._finished or self._aborted:
            return
        self._finished = True
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()  # the peer is gone already: nothing is left to deliver to

    def _release(self) -> None:
        self.socket.close()


class FdStream(Descriptor):
    """Descriptors that poll (pipes, terminals, virtio-serial ports), owned from now on.

    One for both directions, or two. `finish` closes the writing one; a device that carries both directions has no half
    close of its own, and `finish` only keeps this side from writing on.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        super().__init__()
        self._read_fd: Final = read_fd
        self._write_fd: Final = write_fd
        self._open = {read_fd, write_fd}
        for fd in self._open:
            os.set_blocking(fd, False)

    def read_fileno(self) -> int:
        return self._read_fd

    def write_fileno(self) -> int:
        return self._write_fd

    def _recv(self, n: int) -> bytes:
        return os.read(self._read_fd, n)

    def _gather(self, pieces: Sequence[Data]) -> int:
        return os.writev(self._write_fd, pieces)

    async def finish(self) -> None:
        self._finished = True
        if self._write_fd != self._read_fd and self._write_fd in self._open:
            self._open.discard(self._write_fd)
            os.close(self._write_fd)

    def _release(self) -> None:
        while self._open:
            os.close(self._open.pop())


async def connect_unix(path: str) -> SocketStream:
    """Connect to a unix socket; abstract when path begins with NUL. Raises UnavailableError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(sock, path)
    except OSError as error:
        sock.close()
        raise UnavailableError(f"cannot connect to {path!r}: {error.strerror}") from error
    except BaseException:
        sock.close()
        raise
    return SocketStream(sock)


def stream_pair() -> tuple[SocketStream, SocketStream]:
    """Two ends joined by the kernel: for tests, and for what hands an end to another task."""
    left, right = socket.socketpair()
    return SocketStream(left), SocketStream(right)
