"""A layer's bytes without what is around the tar: gzip and zstd, told apart by magic, streamed."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import BinaryIO, cast

import zstandard

from parma_api.layer.errors import LayerError

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_MAX_WINDOW = 128 << 20
_FEED = 1024


class _Checked(io.RawIOBase):
    """Turns a decompressor's failures into E_COMPRESSION."""

    def __init__(self, inner: BinaryIO) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._inner.read(len(buffer))
        except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
            raise LayerError("E_COMPRESSION", f"the compressed layer is broken: {error}") from error
        buffer[: len(data)] = data
        return len(data)


class _Zstd(io.RawIOBase):
    """Frames one after the other; a frame that ends early is an error, not an end.

    Input goes in by `_FEED` bytes, because a repeated block of four bytes unpacks to 128 KiB.
    """

    def __init__(self, inner: io.BufferedReader) -> None:
        self._inner = inner
        self._context = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        self._frame = self._context.decompressobj()
        self._fresh = True
        self._ready = b""
        self._pending = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._ready:
            data = self._pending or self._inner.read(_FEED)
            self._pending = b""
            if not data:
                if not self._fresh:
                    raise EOFError("the last frame is cut")
                return b""
            self._fresh = False
            self._ready = self._frame.decompress(data)
            if self._frame.eof:
                self._pending = self._frame.unused_data
                self._frame = self._context.decompressobj()
                self._fresh = True
        part, self._ready = self._ready[:size], self._ready[size:]
        return part


def open_tar(stream: io.BufferedReader) -> BinaryIO:
    """The uncompressed tar in `stream`. Reading raises LayerError E_COMPRESSION for what is broken."""
    magic = stream.peek(4)[:4]
    if magic.startswith(_GZIP):
        inner: BinaryIO = cast("BinaryIO", gzip.GzipFile(fileobj=stream))
    elif magic == _ZSTD:
        inner = cast("BinaryIO", _Zstd(stream))
    else:
        return stream
    return cast("BinaryIO", io.BufferedReader(_Checked(inner), 1 << 20))
