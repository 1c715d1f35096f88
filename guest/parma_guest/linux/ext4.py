"""The geometry that an ext4 superblock states (Documentation/filesystems/ext4/super.rst). Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from parma_api.status import InvalidArgumentError

SUPERBLOCK_OFFSET = 1024
SUPERBLOCK_SIZE = 1024
_MAGIC = 0xEF53
_INCOMPAT_64BIT = 0x80


@dataclass(frozen=True, slots=True)
class Geometry:
    """Blocks and their size in bytes."""

    blocks: int
    block_size: int

    @property
    def size(self) -> int:
        """Bytes of the file system."""
        return self.blocks * self.block_size


def parse_superblock(data: bytes) -> Geometry:
    """Geometry out of the 1024 bytes at offset 1024. Raises InvalidArgumentError if this is no ext4."""
    if len(data) != SUPERBLOCK_SIZE:
        raise InvalidArgumentError(f"an ext4 superblock has 1024 bytes, not {len(data)}")
    (blocks_low,) = struct.unpack_from("<I", data, 0x04)
    (log_size,) = struct.unpack_from("<I", data, 0x18)
    (magic,) = struct.unpack_from("<H", data, 0x38)
    (incompatible,) = struct.unpack_from("<I", data, 0x60)
    (blocks_high,) = struct.unpack_from("<I", data, 0x150)
    if magic != _MAGIC:
        raise InvalidArgumentError("the device holds no ext4 file system: is it a layer image?")
    if log_size > 6:
        raise InvalidArgumentError(f"ext4 block size 2^{10 + log_size} is out of range")
    high = blocks_high if incompatible & _INCOMPAT_64BIT else 0
    return Geometry(high << 32 | blocks_low, 1024 << log_size)
