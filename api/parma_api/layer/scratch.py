"""A byte store that lies in memory while it is small and in a nameless file beyond."""

from __future__ import annotations

import tempfile
from typing import IO

from parma_api.layer.errors import LayerWriteError, write_error


class Scratch:
    """Bytes that are appended, read and replaced. Holes read as zeros and take no room once in the file.

    All calls raise LayerWriteError if the disk is full.
    """

    def __init__(self, in_memory: int) -> None:
        self._limit = in_memory
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self.size = 0

    def append(self, data: bytes | bytearray) -> int:
        """Result: where `data` begins."""
        at = self.size
        self._grow(len(data))
        self.write(at, data)
        return at

    def append_hole(self, size: int) -> None:
        """`size` zero bytes."""
        self._grow(size)

    def write(self, at: int, data: bytes | bytearray) -> None:
        """Replaces what is at `at`."""
        if self._file is None:
            self._memory[at : at + len(data)] = data
            return
        try:
            self._file.seek(at)
            self._file.write(data)
        except OSError as error:
            raise write_error(error, _where()) from error

    def read(self, at: int, size: int) -> bytes:
        """What was written at `at`; at most to the end."""
        size = min(size, self.size - at)
        if self._file is None:
            return bytes(self._memory[at : at + size])
        try:
            self._file.seek(at)
            return self._file.read(size).ljust(size, b"\0")
        except OSError as error:
            raise LayerWriteError(f"{_where()} cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Frees memory and disk."""
        self._memory.clear()
        if self._file is not None:
            self._file.close()

    def _grow(self, size: int) -> None:
        self.size += size
        if self._file is None and self.size > self._limit:
            self._move_to_file()
        if self._file is None:
            self._memory += bytes(size)

    def _move_to_file(self) -> None:
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
            self._file.write(self._memory)
        except OSError as error:
            raise write_error(error, _where()) from error
        self._memory = bytearray()


def _where() -> str:
    return f"a temporary file in {tempfile.gettempdir()}"
