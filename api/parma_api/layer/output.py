"""Where the image goes: a file, or nowhere when only the root hash is wanted."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from parma_api.layer.errors import LayerWriteError, write_error

_HASHED_AT_ONCE = 1 << 20
_MAX_PIECES = 512
"""Below IOV_MAX, which is 1024 (limits.h)."""


class Output(Protocol):
    """Takes bytes at positions; what is never written reads as zeros."""

    def write(self, at: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Puts the pieces behind one another, the first one at byte `at`. Raises LayerWriteError."""

    def finish(self, size: int) -> None:
        """The file has `size` bytes. Raises LayerWriteError."""


class NoOutput:
    """Forgets everything."""

    def write(self, at: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Nothing."""

    def finish(self, size: int) -> None:
        """Nothing."""


class FileOutput:
    """An empty regular file, open for reading and writing; its holes stay holes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, at: int, pieces: Sequence[bytes | memoryview]) -> None:
        """As in Output."""
        for start in range(0, len(pieces), _MAX_PIECES):
            at = self._write_some(at, pieces[start : start + _MAX_PIECES])

    def _write_some(self, at: int, pieces: Sequence[bytes | memoryview]) -> int:
        end = at + sum(map(len, pieces))
        try:
            at += os.pwritev(self._fd, pieces, at)
            while at < end:
                rest = b"".join(pieces)[at - end :]
                at += os.pwrite(self._fd, rest, at)
        except OSError as error:
            raise write_error(error, "the image") from error
        return end

    def finish(self, size: int) -> None:
        """As in Output."""
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise write_error(error, "the image") from error

    def digests(self, ends: Sequence[int]) -> list[str]:
        """SHA-256 of the file's first bytes, up to each of `ends`, which rise. Raises LayerWriteError."""
        state, at, found = hashlib.sha256(), 0, []
        buffer = memoryview(bytearray(_HASHED_AT_ONCE))
        try:
            for end in ends:
                while at < end:
                    size = os.preadv(self._fd, [buffer[: end - at]], at)
                    if not size:
                        raise LayerWriteError("the image was cut while it was made")
                    state.update(buffer[:size])
                    at += size
                found.append(state.hexdigest())
        except OSError as error:
            raise LayerWriteError(f"the image cannot be read back: {error.strerror}") from error
        return found


@contextmanager
def replacing(path: Path) -> Iterator[int]:
    """A new file that gets the name `path` when the block ends well; else nothing of that name is left.

    What is there already must be a regular file: a device would be replaced, not written. Raises LayerWriteError.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        if os.path.lexists(path) and not path.is_file():
            raise LayerWriteError(f"{path} is no regular file: name another one")
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise write_error(error, str(path)) from error
    try:
        yield fd
        _rename(part, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
        part.unlink(missing_ok=True)


def _rename(part: Path, path: Path) -> None:
    try:
        part.replace(path)
    except OSError as error:
        raise write_error(error, str(path)) from error
