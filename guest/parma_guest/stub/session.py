"""A /dev/fuse or /dev/cuse descriptor served in the agent's loop: one task for each request, as many as are open."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import struct
from collections.abc import Awaitable, Callable
from typing import Final

from parma_api.status import ApiError
from parma_guest.stub import fuse_wire
from parma_guest.stub.fuse_wire import FuseError, Op, RefusedError, Request

log = logging.getLogger(__name__)

MAX_OPEN: Final = 64
"""Requests under way; more are told to try again."""
_UNIQUE: Final = struct.Struct("<Q")

Handler = Callable[[Request], Awaitable[bytes | None]]
"""The body of the answer; None for no answer. Raises RefusedError, FuseError, ApiError."""


class Session:
    """Serves until the kernel ends it; it then closes the descriptor."""

    def __init__(self, fd: int, handler: Handler) -> None:
        """`fd` does not block. In a running loop."""
        self._fd, self._handler = fd, handler
        self._open: dict[int, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._readable)

    def close(self) -> None:
        """The device or mount behind it ends; what waits gets an error from the kernel. Idempotent."""
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        for task in self._open.values():
            task.cancel()

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, fuse_wire.READ_SIZE)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINTR, errno.ENOENT):
                log.info("a stub device has ended: %s", error.strerror)
                self.close()
            return
        if not data:
            self.close()
            return
        try:
            self._accept(fuse_wire.decode(data))
        except FuseError as error:
            log.warning("stub device: %s", error.message)

    def _accept(self, request: Request) -> None:
        if request.opcode == Op.INTERRUPT:
            (unique,) = request.unpack(_UNIQUE)
            if unique in self._open:
                self._open[unique].cancel()
            return
        if len(self._open) >= MAX_OPEN and request.opcode not in fuse_wire.SILENT:
            self._send(fuse_wire.refusal(request.unique, errno.EAGAIN))
            return
        task = self._loop.create_task(self._serve(request))
        self._open[request.unique] = task
        task.add_done_callback(lambda _: self._open.pop(request.unique, None))

    async def _serve(self, request: Request) -> None:
        if request.opcode in fuse_wire.SILENT:
            await self._quiet(request)
            return
        try:
            body = await self._handler(request)
            reply = fuse_wire.answer(request.unique, body or b"")
        except RefusedError as error:
            reply = fuse_wire.refusal(request.unique, error.number)
        except ApiError as error:
            log.warning("stub device: %s", error.message)
            reply = fuse_wire.refusal(request.unique, errno.EIO)
        except asyncio.CancelledError:
            reply = fuse_wire.refusal(request.unique, errno.EINTR)
        self._send(reply)

    async def _quiet(self, request: Request) -> None:
        try:
            await self._handler(request)
        except (RefusedError, ApiError):
            return

    def _send(self, reply: bytes) -> None:
        if self._fd < 0:
            return
        try:
            os.write(self._fd, reply)
        except OSError as error:
            if error.errno != errno.ENOENT:  # ENOENT: the caller is gone
                log.warning("stub device: an answer is refused: %s", error.strerror)
