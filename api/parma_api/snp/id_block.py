"""ID block and ID authentication: by whom a guest may be launched as what (SNP ABI, SNP_LAUNCH_FINISH). Bytes only.

ID block, 96     launch digest [48], family_id [16], image_id [16], version u32 = 1, guest_svn u32, policy u64
public key       curve u32 = 2 (P-384), x [72], y [72] little endian, zeros to 0x404; its digest is SHA-384 of all
signature, 512   r [72], s [72] little endian, zeros
    ID auth, 4096    0x000 algorithm of the ID key, 0x004 of the author key (u32 = 1), 0x040 signature of the block,
                 0x240 ID key, 0x680 the author key's signature of the ID key, 0x880 author key
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from parma_api.status import InvalidArgumentError

BLOCK_SIZE: Final = 96
KEY_SIZE: Final = 0x404
SIGNATURE_SIZE: Final = 512
AUTH_SIZE: Final = 4096
_BLOCK: Final = struct.Struct("<48s16s16sIIQ")
_KEY: Final = struct.Struct("<I72s72s")
_VERSION, _CURVE_P384, _ECDSA_P384 = 1, 2, 1
_INTEGER: Final = 72
_MAX: Final = 1 << 384
assert _BLOCK.size == BLOCK_SIZE


@dataclass(frozen=True, slots=True)
class IdBlock:
    """What the owner of the ID key vouches for; the firmware refuses a launch that differs."""

    launch_digest: bytes
    policy: int
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    guest_svn: int = 0

    def __post_init__(self) -> None:
        sizes = [len(part) for part in (self.launch_digest, self.family_id, self.image_id)]
        if sizes != [48, 16, 16]:
            raise InvalidArgumentError("an ID block has 48 bytes of digest and ids of 16 bytes")
        if not 0 <= self.guest_svn < 1 << 32 or not 0 <= self.policy < 1 << 64:
            raise InvalidArgumentError("guest_svn has 32 bits, the policy 64")

    def to_bytes(self) -> bytes:
        """The 96 bytes that are signed."""
        return _BLOCK.pack(
            *(self.launch_digest, self.family_id, self.image_id, _VERSION),
            *(self.guest_svn, self.policy),
        )


def parse_id_block(data: bytes) -> IdBlock:
    """Raises InvalidArgumentError for another length or version."""
    if len(data) != BLOCK_SIZE:
        raise InvalidArgumentError(f"an ID block has {BLOCK_SIZE} bytes, this has {len(data)}")
    digest, family, image, version, svn, policy = _BLOCK.unpack(data)
    if version != _VERSION:
        raise InvalidArgumentError(f"ID block of version {version}; {_VERSION} is known")
    return IdBlock(digest, policy, family, image, svn)


def public_key(x: int, y: int) -> bytes:
    """A P-384 key in the firmware's form. Raises InvalidArgumentError."""
    return _KEY.pack(_CURVE_P384, _little(x), _little(y)).ljust(KEY_SIZE, b"\0")


def key_digest(key: bytes) -> bytes:
    """What a report says of it, 48 bytes. Raises InvalidArgumentError for another length."""
    if len(key) != KEY_SIZE:
        raise InvalidArgumentError(f"a key of an ID block has {KEY_SIZE} bytes, not {len(key)}")
    return hashlib.sha384(key).digest()


def signature(r: int, s: int) -> bytes:
    """An ECDSA P-384 signature in the firmware's form. Raises InvalidArgumentError."""
    return (_little(r) + _little(s)).ljust(SIGNATURE_SIZE, b"\0")


def id_auth(
    block_signature: bytes,
    id_key: bytes,
    author: tuple[bytes, bytes] | None = None,
) -> bytes:
    """The 4096 bytes that go with an ID block; `author` is its signature over the ID key, and its key."""
    parts = {0x040: block_signature, 0x240: id_key}
    if author is not None:
        parts |= {0x680: author[0], 0x880: author[1]}
    page = bytearray(AUTH_SIZE)
    struct.pack_into("<II", page, 0, _ECDSA_P384, _ECDSA_P384 if author is not None else 0)
    for offset, part in parts.items():
        wanted = SIGNATURE_SIZE if offset in (0x040, 0x680) else KEY_SIZE
        if len(part) != wanted:
            raise InvalidArgumentError(f"a part of ID authentication has {len(part)} bytes")
        page[offset : offset + wanted] = part
    return bytes(page)


def _little(value: int) -> bytes:
    if not 0 < value < _MAX:
        raise InvalidArgumentError("a number of P-384 has 384 bits and is not zero")
    return value.to_bytes(_INTEGER, "little")
