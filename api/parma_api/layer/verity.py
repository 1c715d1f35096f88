"""The dm-verity superblock and tree (section 13)."""

from __future__ import annotations

import hashlib
import struct
from typing import BinaryIO

BLOCK = 4096
SALT = bytes(32)
_SALTED = hashlib.sha256(SALT)


def _digest(block: bytes | memoryview) -> bytes:
    state = _SALTED.copy()
    state.update(block)
    return state.digest()


def levels(leaves: bytes) -> list[bytes]:
    """The levels above digests `leaves`, level 1 first, each padded to whole blocks."""
    found = [leaves + bytes(-len(leaves) % BLOCK)]
    while len(found[-1]) > BLOCK:
        below = memoryview(found[-1])
        digests = b"".join(_digest(below[at : at + BLOCK]) for at in range(0, len(below), BLOCK))
        found.append(digests + bytes(-len(digests) % BLOCK))
    return found


def root_hash(found: list[bytes]) -> str:
    """The root over the top level, hexadecimal."""
    return _digest(found[-1]).hex()


def leaves_of(stream: BinaryIO, blocks: int, *others: hashlib._Hash) -> bytes:
    """Digests of all data blocks; `others` are fed the same bytes."""
    out = bytearray()
    left = blocks * BLOCK
    while left:
        chunk = stream.read(min(left, 1 << 20))
        for other in others:
            other.update(chunk)
        view = memoryview(chunk)
        out += b"".join(_digest(view[at : at + BLOCK]) for at in range(0, len(view), BLOCK))
        left -= len(chunk)
    return bytes(out)


def superblock(blocks: int) -> bytes:
    """The superblock with a zero UUID, padded to a block."""
    head = struct.pack(
        "<8sII16s32sIIQH6x", b"verity\0\0", 1, 1, bytes(16), b"sha256", BLOCK, BLOCK, blocks, 32
    )
    return head.ljust(BLOCK, b"\0")
