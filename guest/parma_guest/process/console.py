"""Terminals: the socket over which crun hands a pseudo-terminal's master side, and its size (tty_ioctl(4))."""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
from types import TracebackType
from typing import Self

from parma_api.status import DeadlineExceededError, InternalError
from parma_guest.linux.errno import kernel_call

_TIOCSWINSZ = 0x5414
MAX_SIZE = 65535


class ConsoleSocket:
    """A listening socket at `path`, gone when left. A context manager."""

    def __init__(self, path: str) -> None:
        """Raises KernelError."""
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with kernel_call("bind", path):
                self._socket.bind(path)
                self._socket.listen(1)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
        os.unlink(self.path)  # noqa: PTH108 (pathlib costs an import)

    async def receive(self, deadline: float) -> int:
        """The terminal's master side. Raises DeadlineExceededError, InternalError."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(deadline):
                peer, _ = await loop.sock_accept(self._socket)
                with peer:
                    await _readable(peer)
                    return _descriptor(peer)
        except TimeoutError:
            raise DeadlineExceededError("crun gave no terminal in time") from None


async def _readable(peer: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(peer.fileno(), _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(peer.fileno())


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _descriptor(peer: socket.socket) -> int:
    """SCM_RIGHTS, unix(7): one descriptor."""
    size = array.array("i").itemsize
    _, messages, _, _ = peer.recvmsg(4096, socket.CMSG_SPACE(size), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in messages:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(data) >= size:
            found: int = struct.unpack("i", data[:size])[0]
            return found
    raise InternalError("crun sent no terminal")


def resize(master: int, width: int, height: int) -> None:
    """Set a terminal's size in characters. Raises KernelError."""
    import fcntl

    with kernel_call("TIOCSWINSZ", master):
        fcntl.ioctl(master, _TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
