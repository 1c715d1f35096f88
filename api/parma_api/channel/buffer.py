"""Bytes that have come for a stream and wait for their reader."""

from __future__ import annotations

from collections import deque
from typing import Final

_SMALL: Final = 4096
_TAIL: Final = 65536


class ReceiveBuffer:
    """A queue of pieces. Small ones are collected, so that a peer's one-byte frames cost a byte each, not an object."""

    def __init__(self) -> None:
        self._pieces: deque[bytes | bytearray] = deque()
        self._offset = 0
        """Bytes of the first piece that are taken already."""
        self.size = 0

    def append(self, data: bytes) -> None:
        """Keep data; by reference when it is large."""
        self.size += len(data)
        if len(data) >= _SMALL:
            self._pieces.append(data)
            return
        tail = self._pieces[-1] if self._pieces else None
        if isinstance(tail, bytearray) and len(tail) < _TAIL:
            tail += data
        else:
            self._pieces.append(bytearray(data))

    def take(self, n: int) -> bytes:
        """1 to n bytes; b"" when there are none."""
        if not self._pieces:
            return b""
        piece = self._pieces[0]
        if self._offset == 0 and len(piece) <= n:
            self._pieces.popleft()
            taken = bytes(piece)
        else:
            with memoryview(piece) as view:
                taken = bytes(view[self._offset : self._offset + n])
            self._offset += len(taken)
            if self._offset == len(piece):
                self._pieces.popleft()
                self._offset = 0
        self.size -= len(taken)
        return taken

    def clear(self) -> None:
        """Drop everything."""
        self._pieces.clear()
        self._offset = self.size = 0
