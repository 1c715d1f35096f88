"""Where a file's blocks are: the 60 bytes of an inode's body, and a leaf block for files above 512 MiB. Pure.

Source: fs/ext4/ext4_extents.h (struct ext4_extent_header, ext4_extent, ext4_extent_idx); layer format, section 9.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from parma_api.layer.errors import FileTooBigError

BODY_SIZE = 60
PER_EXTENT = 32768
IN_INODE = 4
MAX_EXTENTS = 339
"""From 340 on the reference writes a tree that no kernel reads right (layer format, section 9): refused here."""
_BLOCK_SIZE = 4096
MAX_FILE = MAX_EXTENTS * PER_EXTENT * _BLOCK_SIZE
"""Bytes: 42.375 GiB."""

_PER_LEAF = 340
_MAGIC = 0xF30A
_HEADER = struct.Struct("<HHHHI")
_EXTENT = struct.Struct("<IHHI")
_INDEX = struct.Struct("<IIHH")


class Extents(NamedTuple):
    """`leaf` is None where the body is enough; else it is the block behind the data."""

    body: bytes
    leaf: bytes | None


def map_run(first: int, count: int) -> Extents:
    """The map of `count` blocks (at least one) from block `first` on. Raises FileTooBigError."""
    runs = range(0, count, PER_EXTENT)
    if len(runs) > MAX_EXTENTS:
        raise FileTooBigError(f"more than {MAX_FILE} bytes in one run of blocks")
    extents = b"".join(_EXTENT.pack(at, min(count - at, PER_EXTENT), 0, first + at) for at in runs)
    if len(runs) <= IN_INODE:
        return Extents(_node(len(runs), IN_INODE, 0, extents, BODY_SIZE), None)
    index = _INDEX.pack(0, first + count, 0, 0)
    body = _node(1, IN_INODE, 1, index, BODY_SIZE)
    return Extents(body, _node(len(runs), _PER_LEAF, 0, extents, _BLOCK_SIZE))


def _node(entries: int, room: int, depth: int, content: bytes, size: int) -> bytes:
    return (_HEADER.pack(_MAGIC, entries, room, depth, 0) + content).ljust(size, b"\0")
