"""The uncompressed tar out of a tar, tar.gz or tar.zst, in bounded chunks.

Told apart by the first bytes. What is broken around the tar is E_COMPRESSION: a stream that is cut off, a checksum,
rubbish behind a gzip member. A few bytes can unpack to terabytes, so each step's output is limited.
Sources: RFC 1952 (gzip), RFC 8878 (Zstandard).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from parma_api.layer.errors import CompressionError, LayerReadError

CHUNK = 512 << 10
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"
"""Bytes 1 to 3 of a skippable frame's magic; the first is 0x50 to 0x5f."""
_FOREIGN = {b"\xfd7zXZ\0": "xz", b"\x04\x22\x4d\x18": "lz4"}
_GZIP_AUTO = 16 + zlib.MAX_WBITS
MAX_WINDOW = 32 << 20
"""Of zstd: what level 20 writes. Levels 21 and 22 ask the reader for more memory than a layer is worth."""
_LONGEST_MAGIC = max(len(_ZSTD), *map(len, _FOREIGN))


class Input:
    """Exact reads from a binary reader, which may give less than it is asked for."""

    def __init__(self, reader: BinaryIO, progress: Callable[[int], None]) -> None:
        self._reader = reader
        self._progress = progress
        self._buffer = b""
        self._total = 0

    def some(self) -> bytes:
        """What is there, at most CHUNK; nothing at the end. Raises LayerReadError."""
        if self._buffer:
            taken, self._buffer = self._buffer, b""
            return taken
        try:
            data = self._reader.read(CHUNK)
        except OSError as error:
            raise LayerReadError(f"the layer cannot be read: {error.strerror}") from error
        self._total += len(data)
        self._progress(self._total)
        return data

    def exactly(self, size: int) -> bytes:
        """`size` bytes; fewer only at the end."""
        data = self.some()
        pieces, have = [data], len(data)
        while have < size and (data := self.some()):
            pieces.append(data)
            have += len(data)
        whole = b"".join(pieces) if len(pieces) > 1 else pieces[0]
        self._buffer = whole[size:]
        return whole[:size]

    def push_back(self, data: bytes) -> None:
        """`data` is what the next read gives."""
        self._buffer = data + self._buffer


def unpack(source: Input) -> Iterator[bytes]:
    """Non-empty chunks of the uncompressed tar. Raises CompressionError, LayerReadError."""
    magic = source.exactly(_LONGEST_MAGIC)
    source.push_back(magic)
    for foreign, name in _FOREIGN.items():
        if magic.startswith(foreign):
            raise CompressionError(f"the layer is packed with {name}: use gzip, zstd or none")
    if magic.startswith(_GZIP):
        return _gunzip(source)
    if magic.startswith(_ZSTD) or _is_skippable(magic):
        return _unzstd(source)
    return iter(source.some, b"")


def _gunzip(source: Input) -> Iterator[bytes]:
    """All members of a gzip file."""
    while data := source.some():
        member = zlib.decompressobj(_GZIP_AUTO)
        yield from _gunzip_member(member, data, source)
        source.push_back(member.unused_data)


def _gunzip_member(member: zlib._Decompress, data: bytes, source: Input) -> Iterator[bytes]:
    """One member, which begins with `data`."""
    while True:
        try:
            unpacked = member.decompress(data, CHUNK)
        except zlib.error as error:
            raise CompressionError(f"the gzip stream is damaged: {error}") from error
        if unpacked:
            yield unpacked
        if member.eof:
            return
        data = member.unconsumed_tail or source.some()
        if not data:
            raise CompressionError("the gzip stream is cut off")


def _unzstd(source: Input) -> Iterator[bytes]:
    """All frames of a zstd file, block by block: a block unpacks to 128 KiB at most, and only one's end is an end."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    while magic := source.exactly(4):
        if _is_skippable(magic):
            _skip_frame(source)
            continue
        if magic != _ZSTD:
            raise CompressionError("something that is no zstd frame follows in the zstd stream")
        frame = decompressor.decompressobj()
        for part in _frame_parts(source, magic):
            try:
                unpacked = frame.decompress(part)
            except zstandard.ZstdError as error:
                raise CompressionError(f"the zstd stream is damaged: {error}") from error
            if unpacked:
                yield unpacked
        if not frame.eof:
            raise CompressionError("a zstd frame does not end with its last block")


def _frame_parts(source: Input, magic: bytes) -> Iterator[bytes]:
    """The frame's header, then each block with its header, then the checksum if there is one (RFC 8878, 3.1.1)."""
    descriptor = _needed(source, 1)
    single_segment = bool(descriptor[0] & 0x20)
    size_bytes = (int(single_segment), 2, 4, 8)[descriptor[0] >> 6]
    dictionary_bytes = (0, 1, 2, 4)[descriptor[0] & 3]
    rest = _needed(source, int(not single_segment) + dictionary_bytes + size_bytes)
    yield magic + descriptor + rest
    last = False
    while not last:
        header = _needed(source, 3)
        fields = int.from_bytes(header, "little")
        last, kind, size = bool(fields & 1), fields >> 1 & 3, fields >> 3
        if kind == _RESERVED_BLOCK or size > _MAX_ZSTD_BLOCK:
            raise CompressionError("the zstd stream holds an impossible block")
        yield header + _needed(source, 1 if kind == _RLE_BLOCK else size)
    if descriptor[0] & 4:
        yield _needed(source, 4)


_RLE_BLOCK = 1
_RESERVED_BLOCK = 3
_MAX_ZSTD_BLOCK = 128 << 10


def _skip_frame(source: Input) -> None:
    left = int.from_bytes(_needed(source, 4), "little")
    while left:
        left -= len(_needed(source, min(left, CHUNK)))


def _needed(source: Input, size: int) -> bytes:
    data = source.exactly(size) if size else b""
    if len(data) < size:
        raise CompressionError("the zstd stream is cut off")
    return data


def _is_skippable(magic: bytes) -> bool:
    return magic[1:4] == _SKIPPABLE and magic[0] >> 4 == 5
