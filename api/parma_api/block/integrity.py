"""Where dm-integrity keeps data and tags, with the constants of our tables. Pure.

Source: drivers/md/dm-integrity.c (get_data_sector, get_metadata_sector_and_offset, get_provided_data_sectors,
calculate_device_limits, calculate_journal_section_size, struct superblock); lengths are sectors of 512 bytes.

    superblock 8 | journal | run of tags 256, data 32768 | run of tags, data | ... the last area may be shorter
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

SECTOR = 512
BLOCK = 4096
TAG_BYTES = 32
INTERLEAVE = 32768
BUFFER = 128
SHORTEST_JOURNAL = 1
"""Sectors; the kernel makes one section of it. It keeps a journal in memory, in mode D too, which does not use it."""

_PER_BLOCK = BLOCK // SECTOR
_SUPERBLOCK_SECTORS = 8
_PADDING_SECTORS = 8
_MAX_JOURNAL_SECTORS = 131072
_JOURNAL_FACTOR = 7
_JOURNAL_BLOCK_SECTORS = 8
_JOURNAL_SECTOR_DATA = 504
_VERSION = 4
_FIXED_PADDING = 8
_BITMAP_BLOCKS = 12
# magic, version, log2 interleave, tag size, journal sections, provided sectors, flags, log2 sectors per block,
# log2 blocks per bit of a bitmap that this mode does not have
_SUPERBLOCK = struct.Struct("<8sBBHIQIBB")


def provided_sectors(
    device_sectors: int, tag_bytes: int = TAG_BYTES, journal_sectors: int = _MAX_JOURNAL_SECTORS
) -> int:
    """What dm-integrity offers of a device of this size; 0 if the device is too small.

    Computed here because the superblock that states it lies on the host's disk. `journal_sectors`: what the table asks
    for at most; one section it has in any case.
    """
    initial = _initial_sectors(device_sectors, tag_bytes, journal_sectors)
    if initial + _PADDING_SECTORS >= device_sectors:
        return 0
    run = _run_sectors(tag_bytes)
    provided = 0
    for bit in range(device_sectors.bit_length() - 1, 2, -1):
        larger = provided | 1 << bit
        area, offset = divmod(larger - 1, INTERLEAVE)
        last = area * INTERLEAVE + (area + 1) * run + initial + offset
        if last < device_sectors:
            provided = larger
    return provided


@dataclass(frozen=True, slots=True)
class Layout:
    """A device of `device_sectors` with our tags."""

    device_sectors: int

    @property
    def blocks(self) -> int:
        """Blocks of 4096 bytes for data."""
        return provided_sectors(self.device_sectors) // _PER_BLOCK

    @property
    def initial(self) -> int:
        """Bytes of superblock and journal."""
        return _initial_sectors(self.device_sectors, TAG_BYTES) * SECTOR

    def data_at(self, block: int) -> int:
        """The byte where a block of data begins."""
        area, offset = divmod(block, INTERLEAVE // _PER_BLOCK)
        return self._area(area) + _run_sectors(TAG_BYTES) * SECTOR + offset * BLOCK

    def tag_at(self, block: int) -> int:
        """The byte where a block's tag begins."""
        area, offset = divmod(block, INTERLEAVE // _PER_BLOCK)
        return self._area(area) + offset * TAG_BYTES

    def _area(self, area: int) -> int:
        return self.initial + area * (_run_sectors(TAG_BYTES) + INTERLEAVE) * SECTOR

    def superblock(self) -> bytes:
        """The one that the kernel writes with our tables, to compare with what lies on the disk: one block."""
        packed = _SUPERBLOCK.pack(
            b"integrt",
            _VERSION,
            INTERLEAVE.bit_length() - 1,
            TAG_BYTES,
            _journal_sections(self.device_sectors, TAG_BYTES),
            provided_sectors(self.device_sectors),
            _FIXED_PADDING,
            _PER_BLOCK.bit_length() - 1,
            _BITMAP_BLOCKS,
        )
        return packed.ljust(BLOCK, b"\0")


def _run_sectors(tag_bytes: int) -> int:
    tags = tag_bytes * (INTERLEAVE // _PER_BLOCK)
    return _round_up(tags, _PADDING_SECTORS * SECTOR) // SECTOR


def _section_sectors(tag_bytes: int) -> int:
    entry = _round_up(8 + 8 * _PER_BLOCK + tag_bytes, 8)
    entries = _JOURNAL_SECTOR_DATA // entry * _JOURNAL_BLOCK_SECTORS
    return entries * _PER_BLOCK + _JOURNAL_BLOCK_SECTORS


def _journal_sections(
    device_sectors: int, tag_bytes: int, journal_sectors: int = _MAX_JOURNAL_SECTORS
) -> int:
    journal = min(journal_sectors, device_sectors >> _JOURNAL_FACTOR)
    return max(1, journal // _section_sectors(tag_bytes))


def _initial_sectors(
    device_sectors: int, tag_bytes: int, journal_sectors: int = _MAX_JOURNAL_SECTORS
) -> int:
    sections = _journal_sections(device_sectors, tag_bytes, journal_sectors)
    return _SUPERBLOCK_SECTORS + _section_sectors(tag_bytes) * sections


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
