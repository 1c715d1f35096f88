"""dm-verity over a file: superblock and hash tree behind the data (format of hash type 1)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

BLOCK = 4096
SALT = bytes(32)


@dataclass(frozen=True, slots=True)
class Verity:
    """What the kernel's command line needs to open the file."""

    blocks: int
    root: str
    salt: str

    @property
    def parameter(self) -> str:
        """The value of `parma.verity`."""
        return f"{self.blocks},{self.root},{self.salt}"


def _digests(blocks: bytes) -> bytes:
    start = hashlib.sha256(SALT)
    out = bytearray()
    for at in range(0, len(blocks), BLOCK):
        digest = start.copy()
        digest.update(blocks[at : at + BLOCK])
        out += digest.digest()
    return bytes(out)


def tree(data: bytes) -> tuple[bytes, bytes]:
    """The root and the levels, top first, of data that is a whole number of blocks, two or more."""
    levels: list[bytes] = []
    below = data
    while len(below) > BLOCK:
        hashes = _digests(below)
        below = hashes + bytes(-len(hashes) % BLOCK)
        levels.insert(0, below)
    return _digests(below), b"".join(levels)


def superblock(blocks: int, uuid: UUID) -> bytes:
    """One block: the header that veritysetup writes."""
    head = struct.pack(
        "<8sII16s32sIIQH6x256s168x",
        b"verity\0\0",
        1,
        1,
        uuid.bytes,
        b"sha256",
        BLOCK,
        BLOCK,
        blocks,
        len(SALT),
        SALT,
    )
    return head + bytes(BLOCK - len(head))


def append(image: Path, uuid: UUID) -> Verity:
    """Pads the image to whole blocks and appends superblock and tree."""
    data = image.read_bytes()
    padded = data + bytes(-len(data) % BLOCK)
    blocks = len(padded) // BLOCK
    root, levels = tree(padded)
    with image.open("ab") as file:
        file.write(bytes(len(padded) - len(data)) + superblock(blocks, uuid) + levels)
    return Verity(blocks, root.hex(), SALT.hex())
