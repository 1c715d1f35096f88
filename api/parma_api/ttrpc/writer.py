"""The one writer of a connection.

A frame half written by a task that is then cancelled would break the connection for all calls. So tasks only queue
frames, and `run`, which nobody cancels while the connection lives, writes them, several at once when several wait.
"""

from __future__ import annotations

import asyncio
from typing import Final

from parma_api.channel.stream import ByteStream, StreamClosedError

HIGH_WATER: Final = 1 << 20
"""Bytes queued above which senders wait."""


class FrameWriter:
    """Queues whole frames and writes them in order."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._frames: list[bytes] = []
        self._queued = 0
        self._closed = False
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._empty = asyncio.Event()
        self._empty.set()

    async def send(self, frame: bytes) -> None:
        """Queue a frame, waiting for room. Raises StreamClosedError; when cancelled, nothing was queued."""
        await self.wait_room()
        self.put(frame)

    async def wait_room(self) -> None:
        """Return when a frame may be put at once."""
        while not self._room.is_set():
            await self._room.wait()

    def put(self, frame: bytes) -> None:
        """Queue a frame now. Raises StreamClosedError."""
        if self._closed:
            raise StreamClosedError("ttrpc: closed")
        self._frames.append(frame)
        self._queued += len(frame)
        if self._queued > HIGH_WATER:
            self._room.clear()
        self._empty.clear()
        self._filled.set()

    async def flush(self) -> None:
        """Return when all that was queued is written, or the connection lost."""
        await self._empty.wait()

    async def run(self) -> None:
        """Write until cancelled or the stream is lost."""
        try:
            while True:
                await self._filled.wait()
                frames, self._frames, self._queued = self._frames, [], 0
                self._filled.clear()
                self._room.set()
                await self._stream.write(frames[0] if len(frames) == 1 else b"".join(frames))
                if not self._frames:
                    self._empty.set()
        except StreamClosedError:
            pass
        finally:
            self._closed = True
            self._room.set()
            self._empty.set()
