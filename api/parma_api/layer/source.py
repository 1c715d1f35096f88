"""A byte stream that comes in chunks, cut into what a tar reader asks for."""

from __future__ import annotations

from collections.abc import Iterator


class ChunkSource:
    """Reads exact lengths, or views of what is there, out of an iterator of non-empty chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._at = 0

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes; fewer only at the end of the stream. For small sizes: the result is one object."""
        end = self._at + size
        if end <= len(self._chunk):
            taken = self._chunk[self._at : end]
            self._at = end
            return taken
        pieces = []
        while size and (piece := self.some(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def some(self, limit: int) -> memoryview:
        """At least one and at most `limit` (> 0) of the next bytes, not copied; none only at the end of the stream."""
        if self._at == len(self._chunk) and not self._refill():
            return memoryview(b"")
        end = min(self._at + limit, len(self._chunk))
        view = memoryview(self._chunk)[self._at : end]
        self._at = end
        return view

    def skip(self, size: int) -> int:
        """Passes over `size` bytes; result: how many were missing because the stream ended."""
        while size and (piece := self.some(size)):
            size -= len(piece)
        return size

    def drain(self) -> None:
        """Passes over the rest."""
        while self._refill():
            pass

    def _refill(self) -> bool:
        self._chunk = next(self._chunks, b"")
        self._at = 0
        return bool(self._chunk)
