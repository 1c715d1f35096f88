"""Directory blocks: linear lists of names, each block closed by a filler entry. Pure.

Source: fs/ext4/ext4.h (struct ext4_dir_entry_2); layer format, section 10.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping

BLOCK_SIZE = 4096
_ENTRY = struct.Struct("<IHBB")
_FILLER = 12
_TYPES = {0o10: 1, 0o04: 2, 0o02: 3, 0o06: 4, 0o01: 5, 0o12: 7}
"""File type bits of a mode, shifted by 12, to EXT4_FT_*."""


def encode_directory(
    number: int, parent: int, children: Mapping[bytes, int], mode_of: Callable[[int], int]
) -> Iterator[bytes]:
    """The blocks of a directory: itself, its parent, then the children by inode number and name."""
    in_order = sorted(children.items(), key=lambda child: (child[1], child[0]))
    block = bytearray()
    for name, inode in ((b".", number), (b"..", parent), *in_order):
        length = len(name) + _ENTRY.size + 3 & ~3
        if BLOCK_SIZE - len(block) < length + _FILLER:
            yield _closed(block)
            block.clear()
        block += _ENTRY.pack(inode, length, len(name), _TYPES[mode_of(inode) >> 12])
        block += name.ljust(length - _ENTRY.size, b"\0")
    yield _closed(block)


def _closed(block: bytearray) -> bytes:
    filler = _ENTRY.pack(0, BLOCK_SIZE - len(block), 0, 0)
    return bytes((block + filler).ljust(BLOCK_SIZE, b"\0"))
