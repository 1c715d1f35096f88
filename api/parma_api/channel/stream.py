"""A byte stream as its users see it, and the two kinds that the kernel gives: sockets, and other descriptors."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias, TypeVar

from parma_api.status import UnavailableError

T = TypeVar("T")
Data: TypeAlias = bytes | bytearray | memoryview

CHUNK: Final = 65536
"""Bytes that a read takes at most unless told otherwise."""


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


class _Descriptor:
    """What both kinds share: waiting for readiness, and closing once no operation is pending."""

    def __init__(self) -> None:
        self._aborted = False
        self._pending: set[asyncio.Future[None]] = set()

    def _release(self) -> None:
        raise NotImplementedError

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

    async def _readable(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        await self._ready(loop.add_reader, loop.remove_reader, fd)

    async def _writable(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        await self._ready(loop.add_writer, loop.remove_writer, fd)

    def abort(self) -> None:
        if self._aborted:
            return
        self._aborted = True
        for future in self._pending:
            _wake(future)
        self._release_when_idle()

    def _release_when_idle(self) -> None:
        """A descriptor closed under a registered waiter could be another file's by the time it fires."""
        if self._aborted and not self._pending:
            self._release()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class SocketStream(_Descriptor):
    """A connected stream socket (unix, vsock), which it owns from now on."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        sock.settimeout(0)
        self.socket: Final = sock
        self._finished = False

    async def read(self, n: int = CHUNK) -> bytes:
        while not self._aborted:
            try:
                return self.socket.recv(n)
            except BlockingIOError:
                await self._readable(self.socket.fileno())
            except OSError as error:
                raise StreamClosedError(f"stream lost while reading: {error.strerror}") from error
        return b""

    async def write(self, data: Data) -> None:
        view = memoryview(data)
        while view:
            if self._aborted or self._finished:
                raise StreamClosedError("stream closed")
            try:
                view = view[self.socket.send(view) :]
            except BlockingIOError:
                await self._writable(self.socket.fileno())
            except OSError as error:
                raise StreamClosedError(f"stream lost while writing: {error.strerror}") from error

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


class FdStream(_Descriptor):
    """Descriptors that poll (pipes, terminals, virtio-serial ports), owned from now on.

    One for both directions, or two. `finish` closes the writing one; a device that carries both directions has no half
    close of its own, and `finish` does nothing there.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        super().__init__()
        self._read_fd: Final = read_fd
        self._write_fd: Final = write_fd
        self._open = {read_fd, write_fd}
        self._finished = False
        for fd in self._open:
            os.set_blocking(fd, False)

    async def read(self, n: int = CHUNK) -> bytes:
        while not self._aborted:
            try:
                return os.read(self._read_fd, n)
            except BlockingIOError:
                await self._readable(self._read_fd)
            except OSError as error:
                raise StreamClosedError(f"stream lost while reading: {error.strerror}") from error
        return b""

    async def write(self, data: Data) -> None:
        view = memoryview(data)
        while view:
            if self._aborted or self._finished:
                raise StreamClosedError("stream closed")
            try:
                view = view[os.write(self._write_fd, view) :]
            except BlockingIOError:
                await self._writable(self._write_fd)
            except OSError as error:
                raise StreamClosedError(f"stream lost while writing: {error.strerror}") from error

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
