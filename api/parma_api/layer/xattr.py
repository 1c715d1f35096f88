"""Extended attributes in an inode's spare bytes and in an attribute block: placed, encoded, read back. Pure.

Source: fs/ext4/xattr.h (struct ext4_xattr_entry, ext4_xattr_header); layer format, section 8.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from parma_api.layer.errors import AttributeSpaceError, shown
from parma_api.layer.xattr_name import Name, split_name
from parma_api.layer.xattr_order import block_order

BLOCK_SIZE = 4096
AREA_SIZE = 104
"""Bytes 152 to 255 of an inode record."""
NO_AREA = bytes(AREA_SIZE)

_MAGIC = struct.pack("<I", 0xEA020000)
_BLOCK_HEADER = struct.pack("<III20x", 0xEA020000, 1, 1)  # reference count, blocks
_ENTRY = struct.Struct("<BBHIII")
_IN_INODE_ROOM = 96
_BLOCK_ROOM = 4060
_MASK32 = 0xFFFF_FFFF


class _Attribute(NamedTuple):
    name: Name
    value: bytes

    @property
    def cost(self) -> int:
        return _ENTRY.size + _round4(len(self.name.suffix)) + _round4(len(self.value))


class Placed(NamedTuple):
    """`area` for the inode record; `block`, or None if nothing had to go there."""

    area: bytes
    block: bytes | None


EMPTY_BLOCK = _BLOCK_HEADER.ljust(BLOCK_SIZE, b"\0")
"""What an attribute block becomes when nothing is left for it."""


def place(attributes: Mapping[bytes, bytes]) -> Placed:
    """Each attribute into the inode if it fits, else into the block. Raises AttributeSpaceError."""
    in_inode: list[_Attribute] = []
    in_block: list[_Attribute] = []
    inode_room, block_room = _IN_INODE_ROOM, _BLOCK_ROOM
    for full, value in sorted(attributes.items()):
        attribute = _Attribute(split_name(full), value)
        if attribute.cost <= inode_room:
            in_inode.append(attribute)
            inode_room -= attribute.cost
        elif attribute.cost <= block_room:
            in_block.append(attribute)
            block_room -= attribute.cost
        else:
            raise AttributeSpaceError(f"no room for the attribute {shown(full)}")
    area = _MAGIC + _encode(in_inode, AREA_SIZE - len(_MAGIC), 0) if in_inode else NO_AREA
    return Placed(area, _encode_block(in_block) if in_block else None)


def read_area(area: bytes) -> dict[bytes, bytes]:
    """The attributes of an inode record, as far as the reference reads them: up to the first ACL."""
    return _read(area[len(_MAGIC) :], 0) if area.startswith(_MAGIC) else {}


def read_block(block: bytes) -> dict[bytes, bytes]:
    """The attributes of an attribute block, up to the first ACL."""
    return _read(block, len(_BLOCK_HEADER))


def entry_hash(suffix: bytes, value: bytes) -> int:
    """The hash of ext4_xattr_hash_entry with unsigned name bytes, 32 bits."""
    result = 0
    for byte in suffix:
        result = (result << 5 ^ result >> 27 ^ byte) & _MASK32
    padded = value.ljust(_round4(len(value)), b"\0")
    for (word,) in struct.iter_unpack("<I", padded):
        result = (result << 16 ^ result >> 16 ^ word) & _MASK32
    return result


def _encode_block(attributes: list[_Attribute]) -> bytes:
    ordered = [attributes[at] for at in block_order([a.name for a in attributes])]
    size = BLOCK_SIZE - len(_BLOCK_HEADER)
    return _BLOCK_HEADER + _encode(ordered, size, len(_BLOCK_HEADER))


def _encode(attributes: list[_Attribute], size: int, base: int) -> bytes:
    """Entries from the start, values from the end downward; value offsets count from `base` bytes before the area."""
    entries, values = bytearray(), b""
    for (index, suffix), value in attributes:
        values = value.ljust(_round4(len(value)), b"\0") + values
        at = base + size - len(values)
        entries += _ENTRY.pack(len(suffix), index, at, 0, len(value), entry_hash(suffix, value))
        entries += suffix.ljust(_round4(len(suffix)), b"\0")
    return bytes(entries).ljust(size - len(values), b"\0") + values


def _read(area: bytes, at: int) -> dict[bytes, bytes]:
    """Stops at an empty suffix: that is how the end is marked, and what an ACL has."""
    found: dict[bytes, bytes] = {}
    while at + _ENTRY.size <= len(area) and area[at]:
        length, index, offset, _block, size, _hash = _ENTRY.unpack_from(area, at)
        at += _ENTRY.size
        found[Name(index, area[at : at + length]).full] = area[offset : offset + size]
        at += _round4(length)
    return found


def _round4(length: int) -> int:
    return length + 3 & ~3
