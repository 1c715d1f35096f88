"""Block groups: how many, where their tables lie, their bitmaps and descriptors, and the superblock. Pure.

Sources: fs/ext4/ext4.h (struct ext4_super_block, ext4_group_desc); layer format, sections 3, 11 and 12.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from parma_api.layer.inode import FIRST, RECORD

BLOCK_SIZE = 4096
MAX_IMAGE = 128 << 30
"""The disk size that the format is laid out for, and the largest image. Another one would change every hash."""
PER_GROUP = 32768
_PER_TABLE_BLOCK = BLOCK_SIZE // RECORD
_DESCRIPTOR = struct.Struct("<IIIHHH14x")
_DESCRIPTORS_PER_BLOCK = BLOCK_SIZE // _DESCRIPTOR.size


def _ceil(number: int, by: int) -> int:
    return -(-number // by)


DESCRIPTOR_BLOCKS = _ceil(_ceil(MAX_IMAGE // BLOCK_SIZE, PER_GROUP), _DESCRIPTORS_PER_BLOCK)
DATA_START = 1 + DESCRIPTOR_BLOCKS
"""The first block behind superblock and descriptors."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tables of a finished image are, in blocks. `inodes` counts up to the highest number in use."""

    table: int
    inodes: int
    groups: int
    inodes_per_group: int

    @property
    def bitmaps(self) -> int:
        """The first bitmap: for each group one of blocks, then one of inodes."""
        return self.table + self.groups * self.inodes_per_group // _PER_TABLE_BLOCK

    @property
    def used(self) -> int:
        """The first block behind everything."""
        return self.bitmaps + 2 * self.groups

    @property
    def blocks(self) -> int:
        """The image's size: all groups but the last are whole, and the last has at least one block."""
        return max(self.used, (self.groups - 1) * PER_GROUP + 1)


@dataclass(frozen=True, slots=True)
class Group:
    """One group's bitmaps, each of one block, and how many of its inodes are directories."""

    blocks: bytes
    inodes: bytes
    directories: int


def choose_layout(table: int, inodes: int) -> Layout:
    """The fewest groups, and for these the fewest inodes per group, with content up to block `table`."""

    def groups(per_group: int) -> int:
        content = PER_GROUP - per_group // _PER_TABLE_BLOCK - 2
        needed = (inodes - 1) // per_group * content + 1
        return _ceil(max(table, needed), content)

    sizes = range(_PER_TABLE_BLOCK, PER_GROUP + 1, _PER_TABLE_BLOCK)
    per_group = min(sizes, key=groups)
    return Layout(table, inodes, groups(per_group), per_group)


def make_groups(layout: Layout, records: bytes | bytearray) -> Iterator[Group]:
    """The groups in order; `records` is the inode table."""
    types = records[1::RECORD].translate(_DIRECTORY_TYPE)
    for number in range(layout.groups):
        first = number * layout.inodes_per_group
        end = first + layout.inodes_per_group
        present = min(max(layout.inodes, FIRST - 1), end) - first
        yield Group(
            blocks=_block_bitmap(layout, number),
            inodes=_bits(0, max(present, 0)),
            directories=types[first:end].count(1),
        )


def metadata_blocks(layout: Layout, groups: list[Group]) -> bytes:
    """Blocks 0 to DATA_START - 1: superblock and descriptors."""
    descriptors = b"".join(
        _descriptor(layout, number, group) for number, group in enumerate(groups)
    )
    free_blocks = sum(_free(group.blocks, PER_GROUP) for group in groups)
    free_inodes = sum(_free(group.inodes, layout.inodes_per_group) for group in groups)
    first = bytes(1024) + _superblock(layout, free_blocks, free_inodes)
    return first.ljust(BLOCK_SIZE, b"\0") + descriptors.ljust(DESCRIPTOR_BLOCKS * BLOCK_SIZE, b"\0")


_DIRECTORY_TYPE = bytes(high & 0xF0 == stat.S_IFDIR >> 8 for high in range(256))


def _bits(start: int, end: int) -> bytes:
    """A bitmap block in which the bits from `start` to `end` are set, lowest first."""
    return ((1 << end) - (1 << start)).to_bytes(BLOCK_SIZE, "little")


def _block_bitmap(layout: Layout, number: int) -> bytes:
    used = min(max(layout.used - number * PER_GROUP, 0), PER_GROUP)
    bits = (1 << used) - 1
    if number == 0:
        taken = 1 + _ceil(layout.groups, _DESCRIPTORS_PER_BLOCK)
        bits &= ~((1 << DATA_START) - (1 << taken))
    behind_end = layout.blocks % PER_GROUP
    if number == layout.groups - 1 and behind_end:
        bits |= (1 << PER_GROUP) - (1 << behind_end)
    return bits.to_bytes(BLOCK_SIZE, "little")


def _free(bitmap: bytes, size: int) -> int:
    return size - int.from_bytes(bitmap, "little").bit_count()


def _descriptor(layout: Layout, number: int, group: Group) -> bytes:
    bitmap = layout.bitmaps + 2 * number
    return _DESCRIPTOR.pack(
        bitmap,
        bitmap + 1,
        layout.table + number * layout.inodes_per_group // _PER_TABLE_BLOCK,
        _free(group.blocks, PER_GROUP),
        _free(group.inodes, layout.inodes_per_group),
        group.directories,
    )


def _superblock(layout: Layout, free_blocks: int, free_inodes: int) -> bytes:
    """Fields at their offsets; the rest is zero, identifiers and times included."""
    block = bytearray(1024)
    inodes = layout.groups * layout.inodes_per_group
    for offset, form, value in (
        (0x000, "I", inodes),
        (0x004, "I", layout.blocks),
        (0x00C, "I", free_blocks),
        (0x010, "I", free_inodes),
        (0x018, "I", 2),  # log2(block size / 1024)
        (0x01C, "I", 2),  # the same for clusters
        (0x020, "I", PER_GROUP),
        (0x024, "I", PER_GROUP),
        (0x028, "I", layout.inodes_per_group),
        (0x038, "H", 0xEF53),
        (0x03A, "H", 1),  # clean
        (0x03C, "H", 1),  # on errors: continue
        (0x04C, "I", 1),  # revision: with inode sizes and features
        (0x054, "I", FIRST),
        (0x058, "H", RECORD),
        (0x05C, "I", 0x208),  # compatible: ext_attr, sparse_super2
        (0x060, "I", 0x242),  # incompatible: filetype, extents, flex_bg
        (0x064, "I", 0x104A),  # read-only compatible: large_file, huge_file, extra_isize, readonly
        (0x15C, "H", 24),  # least extra inode size
        (0x15E, "H", 24),  # wanted extra inode size
        (0x174, "B", 31),  # log2(groups in a flex group)
        (0x268, "I", FIRST),  # lost+found
    ):
        struct.pack_into("<" + form, block, offset, value)
    return bytes(block)
