"""What a layer's disk says of itself, read once and believed in nothing.

Layout: ext4 image, one block with the verity superblock, the hash tree, top level first (layer-format.md 13). The
superblock carries no root hash: it is computed from the tree's top block. The policy judges the result; the mapping is
then built from it and from constants, so that a false claim ends in an I/O error.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

from parma_api.block.integrity import BLOCK
from parma_api.block.tables import SALT, tree_blocks
from parma_api.ids import RootHash
from parma_api.status import InvalidArgumentError
from parma_guest.linux.ext4 import SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, parse_superblock

Read = Callable[[int, int], bytes]
"""(offset, size) -> exactly that many bytes."""

MAX_IMAGE = 128 << 30
"""The converter's own limit (layer-format.md 2)."""
_SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6x256s168x")


@dataclass(frozen=True, slots=True)
class Claim:
    """The root, and how many data blocks it covers."""

    root_hash: RootHash
    data_blocks: int

    @property
    def size(self) -> int:
        """Bytes of the ext4 image."""
        return self.data_blocks * BLOCK


def read_claim(read: Read, device_size: int) -> Claim:
    """The claim of a disk of `device_size` bytes. Raises InvalidArgumentError: not in the layer format."""
    size = parse_superblock(read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE)).size
    if size % BLOCK or not 2 * BLOCK <= size <= MAX_IMAGE:
        raise InvalidArgumentError(f"the layer's ext4 image of {size} bytes is out of range")
    blocks = size // BLOCK
    whole = size + BLOCK * (1 + tree_blocks(blocks))
    if whole > device_size:
        raise InvalidArgumentError(
            f"the layer's disk has {device_size} bytes, image and hash tree need {whole}"
        )
    check_superblock(read(size, _SUPERBLOCK.size), blocks)
    top = read(size + BLOCK, BLOCK)
    return Claim(RootHash(hashlib.sha256(SALT + top).hexdigest()), blocks)


def check_superblock(data: bytes, data_blocks: int) -> None:
    """Refuse a verity superblock that differs from the layer format in anything but its UUID."""
    if len(data) != _SUPERBLOCK.size:
        raise InvalidArgumentError("the layer's verity superblock is cut off")
    magic, version, kind, _, name, data_size, hash_size, blocks, salt_size, salt = (
        _SUPERBLOCK.unpack(data)
    )
    found = {
        "magic": (magic, b"verity\0\0"),
        "version": (version, 1),
        "hash type": (kind, 1),
        "algorithm": (name, b"sha256".ljust(32, b"\0")),
        "data block size": (data_size, BLOCK),
        "hash block size": (hash_size, BLOCK),
        "number of data blocks": (blocks, data_blocks),
        "salt size": (salt_size, len(SALT)),
        "salt": (salt, bytes(256)),
        "padding": (data[82:88] + data[344:], bytes(6 + 168)),
    }
    for field, (value, wanted) in found.items():
        if value != wanted:
            raise InvalidArgumentError(
                f"the layer's verity superblock has another {field} than the layer format"
            )
