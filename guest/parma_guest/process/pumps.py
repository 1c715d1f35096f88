"""Bytes between a descriptor of a process and a stream of the channel, one direction each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from parma_api.channel.stream import ByteStream, FdStream, StreamClosedError

CHUNK: Final = 65536
IDLE: Final = 0.5
"""Seconds without a byte after the process's end: whoever still holds the pipe is another process."""


class Outlet:
    """The reading side of a pipe or terminal, which it owns."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._patience: float | None = None
        self._waiting: asyncio.Future[bool] | None = None
        self._closed = False
        os.set_blocking(fd, False)

    def process_ended(self) -> None:
        """From now on silence is the end."""
        self._patience = IDLE
        if self._waiting is not None:
            self._loop.call_later(IDLE, _give_up, self._waiting)

    def wait_for_ever(self) -> None:
        """Silence is no end any more: for whoever only empties the pipe."""
        self._patience = None

    async def read(self) -> bytes:
        """The next bytes; b"" at the end, and after IDLE seconds of silence when the process has ended."""
        while True:
            try:
                return os.read(self._fd, CHUNK)
            except BlockingIOError:
                if not await self._readable():
                    return b""
            except OSError:  # EIO: the last process has closed the terminal
                return b""

    async def _readable(self) -> bool:
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiting = future
        self._loop.add_reader(self._fd, _ready, future)
        if self._patience is not None:
            self._loop.call_later(self._patience, _give_up, future)
        try:
            return await future
        finally:
            self._waiting = None
            self._loop.remove_reader(self._fd)

    def close(self) -> None:
        """Close the descriptor; nobody reads meanwhile. Idempotent."""
        if not self._closed:
            self._closed = True
            os.close(self._fd)


def _ready(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(True)


def _give_up(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)


async def carry_out(outlet: Outlet, stream: ByteStream, done: Callable[[], None]) -> None:
    """Process to channel; `done` when everything is on its way. Then empties the pipe, so that nobody blocks on it."""
    try:
        while data := await outlet.read():
            await stream.write(data)
        await stream.finish()
    except StreamClosedError:
        stream.abort()  # nobody reads: the process must not block
    done()
    outlet.wait_for_ever()
    while await outlet.read():
        continue


async def carry_in(stream: ByteStream, target: FdStream) -> None:
    """Channel to process, until the host's half close, which closes the pipe."""
    try:
        while data := await stream.read():
            await target.write(data)
        target.abort()
        await stream.finish()
    except StreamClosedError:
        stream.abort()  # the process does not read any more, or the host has gone
        target.abort()


async def say_and_finish(stream: ByteStream, text: bytes) -> None:
    """One line, then the end."""
    try:
        await stream.write(text)
        await stream.finish()
    except StreamClosedError:
        stream.abort()


async def join(left: ByteStream, right: ByteStream) -> None:
    """Carry both directions until both have ended."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(left, right))
            group.create_task(_copy(right, left))
    finally:
        left.abort()
        right.abort()


async def _copy(source: ByteStream, target: ByteStream) -> None:
    try:
        while data := await source.read():
            await target.write(data)
        await target.finish()
    except StreamClosedError:
        source.abort()
        target.abort()
