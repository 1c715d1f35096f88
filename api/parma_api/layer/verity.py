"""dm-verity: the hash tree, its root, and the superblock in front of it, byte for byte as veritysetup makes them.

Sources: Documentation/admin-guide/device-mapper/verity.rst, cryptsetup lib/verity/verity.c (struct verity_sb);
layer format, section 13. Algorithm, block sizes and salt are constants: the guest takes none of them from the host.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from parma_api.ids import RootHash
from parma_api.layer.scratch import Scratch

BLOCK_SIZE = 4096
DIGEST_SIZE = 32
PER_BLOCK = BLOCK_SIZE // DIGEST_SIZE
SALT = bytes(32)
ZERO_BLOCK = bytes(BLOCK_SIZE)

_SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6x256s168x")
_LEVEL_1_IN_MEMORY = 8 << 20


def superblock(data_blocks: int, salt: bytes = SALT) -> bytes:
    """The superblock's 512 bytes. The UUID is zero: a random one would make each image another file."""
    return _SUPERBLOCK.pack(
        b"verity",
        1,
        1,
        bytes(16),
        b"sha256",
        BLOCK_SIZE,
        BLOCK_SIZE,
        data_blocks,
        len(salt),
        salt,
    )


def root_of(top: bytes) -> RootHash:
    """The root hash over the tree's top block."""
    return RootHash(hashlib.sha256(SALT + top).hexdigest())


class VerityTree:
    """Hashes an image's blocks in order as they come; single blocks can be replaced until `finish`.

    Level 1 has a 128th of the image and goes to a temporary file when it is large; the levels above stay in memory,
    a 16384th. Where 128 data blocks in a row are a hole, level 1 has a hole too.
    """

    def __init__(self, salt: bytes = SALT) -> None:
        self._salted = hashlib.sha256(salt)
        self._zero = self._digest(ZERO_BLOCK)
        self._zeros = self._zero * PER_BLOCK
        self._zeros_digest = self._digest(self._zeros)
        self._level_1 = Scratch(_LEVEL_1_IN_MEMORY)
        self._open = bytearray()
        """The last block of level 1, not yet full."""
        self._upper: list[bytes] = []
        self.blocks = 0

    def add(self, data: memoryview) -> None:
        """The next blocks, whole ones."""
        new_hash, digests = self._salted.copy, self._open
        for at in range(0, len(data), BLOCK_SIZE):
            block = data[at : at + BLOCK_SIZE]
            if not block[0] and bytes(block) == ZERO_BLOCK:
                digests += self._zero
                continue
            state = new_hash()
            state.update(block)
            digests += state.digest()
        self.blocks += len(data) // BLOCK_SIZE
        self._flush()

    def add_zeros(self, count: int) -> None:
        """The next `count` blocks are zero: their digest is a constant, so a hole of any size is quick."""
        self.blocks += count
        part = min(count, -len(self._open) // DIGEST_SIZE % PER_BLOCK)
        self._open += self._zero * part
        self._flush()
        whole, rest = divmod(count - part, PER_BLOCK)
        self._level_1.append_hole(whole * BLOCK_SIZE)
        self._open += self._zero * rest

    def replace(self, block: int, data: memoryview) -> None:
        """Other content for blocks that were added, from number `block` on."""
        for at in range(0, len(data), BLOCK_SIZE):
            digest = self._digest(data[at : at + BLOCK_SIZE])
            offset = (block + at // BLOCK_SIZE) * DIGEST_SIZE
            if offset < self._level_1.size:
                self._level_1.write(offset, digest)
            else:
                offset -= self._level_1.size
                self._open[offset : offset + DIGEST_SIZE] = digest

    def finish(self) -> RootHash:
        """The root hash; no block can be added afterwards. One data block alone has no tree: its digest is the root."""
        if self.blocks == 1:
            return RootHash(self._open.hex())
        self._open += bytes(-len(self._open) % BLOCK_SIZE)
        self._flush()
        level = b"".join(
            self._zeros_digest if block is self._zeros else self._digest(block)
            for block in self._level_1_blocks()
        )
        while len(level) > DIGEST_SIZE:
            level += bytes(-len(level) % BLOCK_SIZE)
            self._upper.append(level)
            view = memoryview(level)
            level = b"".join(
                self._digest(view[at : at + BLOCK_SIZE]) for at in range(0, len(level), BLOCK_SIZE)
            )
        return RootHash(level.hex())

    def levels(self) -> Iterator[bytes]:
        """The finished tree as it lies on disk, top level first, in pieces of whole blocks."""
        yield from reversed(self._upper)
        yield from self._level_1_blocks()

    def close(self) -> None:
        """Removes what is on disk."""
        self._level_1.close()

    def _level_1_blocks(self) -> Iterator[bytes]:
        for at in range(0, self._level_1.size, BLOCK_SIZE):
            block = self._level_1.read(at, BLOCK_SIZE)
            # A hole stands for a block of zero blocks' digests: no digest is zero.
            yield self._zeros if block == ZERO_BLOCK else block

    def _flush(self) -> None:
        if full := len(self._open) // BLOCK_SIZE * BLOCK_SIZE:
            self._level_1.append(self._open[:full])
            del self._open[:full]

    def _digest(self, data: bytes | memoryview) -> bytes:
        state = self._salted.copy()
        state.update(data)
        return state.digest()
