"""The key of an encrypted volume: a secret, and everything that the kernel must be told to open the blob.

88 bytes, little endian. A broker holds and releases them as one `oct` key, so that nothing about a volume comes from
whoever stores it: no header is on the blob, and none is read.

    offset  size
    0       8    "parmavol"
    8       1    version: 1
    9       1    kind: 1 read-only, 2 read-write
    10      6    zero
    16      8    blocks of 4096 bytes: of data (read-only), of the whole blob (read-write)
    24      32   root of the hash tree over the ciphertext (read-only), zero (read-write)
    56      32   secret

From the secret: HKDF-SHA256 without salt, info = "parma volume 1 " and the kind's name.

    read-only    data | one block of superblock (for tools, never read) | hash tree: dm-verity, above it dm-crypt
                 aes-xts-plain64; key 64 bytes
    read-write   dm-integrity (parma_api.block.integrity) with a journal, above it dm-crypt
                 authenc(hmac(sha256),xts(aes))-plain64; key 96 bytes, the cipher's first

Standard library only: the sidecar reads it in an emulated machine.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from typing import Final

from parma_api.block.integrity import BLOCK, SECTOR, Layout
from parma_api.block.tables import KEY_BYTES, PLAIN_KEY_BYTES, tree_blocks
from parma_api.ids import RootHash
from parma_api.status import InvalidArgumentError

VERSION: Final = 1
SECRET_BYTES: Final = 32
MIN_BLOCKS: Final = 2
"""A hash tree over one block has no level."""
MIN_WRITABLE: Final = (16 << 20) // BLOCK
MAX_BLOCKS: Final = (16 << 40) // BLOCK
_FORM: Final = struct.Struct("<8sBB6sQ32s32s")
_MAGIC: Final = b"parmavol"
_NO_ROOT: Final = bytes(32)
SIZE: Final = _FORM.size


class VolumeKeyError(InvalidArgumentError):
    """The bytes are no volume's key; the message quotes none of them."""


class Kind(enum.IntEnum):
    """What a volume is for."""

    READ_ONLY = 1
    READ_WRITE = 2

    @property
    def label(self) -> str:
        """As commands and key derivation write it."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class VolumeKey:
    """See the module. `root` is None for a read-write volume. Raises VolumeKeyError for what cannot be."""

    kind: Kind
    blocks: int
    root: RootHash | None
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        least = MIN_BLOCKS if self.kind is Kind.READ_ONLY else MIN_WRITABLE
        if not least <= self.blocks <= MAX_BLOCKS:
            raise VolumeKeyError(f"a {self.kind.label} volume has {least} to {MAX_BLOCKS} blocks")
        if (self.root is None) is (self.kind is Kind.READ_ONLY):
            raise VolumeKeyError("a read-only volume has a root hash, a read-write one none")
        if len(self.secret) != SECRET_BYTES or not any(self.secret):
            raise VolumeKeyError(f"a volume's secret has {SECRET_BYTES} bytes")

    @property
    def blob_size(self) -> int:
        """Bytes of the whole blob."""
        if self.kind is Kind.READ_WRITE:
            return self.blocks * BLOCK
        return (self.blocks + 1 + tree_blocks(self.blocks)) * BLOCK

    @property
    def data_sectors(self) -> int:
        """Sectors of the file system."""
        if self.kind is Kind.READ_ONLY:
            return self.blocks * (BLOCK // SECTOR)
        return self.layout.blocks * (BLOCK // SECTOR)

    @property
    def layout(self) -> Layout:
        """Of a read-write blob."""
        return Layout(self.blocks * (BLOCK // SECTOR))

    def cipher_key(self) -> bytearray:
        """What dm-crypt is given; the caller overwrites it."""
        size = PLAIN_KEY_BYTES if self.kind is Kind.READ_ONLY else KEY_BYTES
        return hkdf(self.secret, b"parma volume 1 " + self.kind.label.encode(), size)

    def encode(self) -> bytes:
        """The 88 bytes."""
        root = _NO_ROOT if self.root is None else bytes.fromhex(self.root)
        return _FORM.pack(_MAGIC, VERSION, self.kind, bytes(6), self.blocks, root, self.secret)


def decode(data: bytes) -> VolumeKey:
    """The inverse of `encode`. Raises VolumeKeyError: another length, version or kind, bytes that must be zero."""
    if len(data) != SIZE:
        raise VolumeKeyError(
            f"a volume's key has {SIZE} bytes, this has {len(data)}: is it the key of a volume?"
        )
    magic, version, kind, zero, blocks, root, secret = _FORM.unpack(data)
    if magic != _MAGIC or any(zero):
        raise VolumeKeyError(
            "the released key is no volume's: name the kid of `parma volume create`"
        )
    if version != VERSION or kind not in tuple(Kind):
        raise VolumeKeyError(f"the volume's key has version {version}, kind {kind}: unknown here")
    return VolumeKey(Kind(kind), blocks, None if root == _NO_ROOT else RootHash(root.hex()), secret)


def hkdf(secret: bytes, info: bytes, size: int) -> bytearray:
    """HKDF-SHA256 (RFC 5869) without salt."""
    extracted = hmac.digest(bytes(32), secret, hashlib.sha256)
    out, block = bytearray(), b""
    while len(out) < size:
        counter = len(out) // 32 + 1
        block = hmac.digest(extracted, block + info + bytes([counter]), hashlib.sha256)
        out += block
    del out[size:]
    return out
