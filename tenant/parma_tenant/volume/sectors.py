"""Blocks of 4096 bytes as the kernel's dm-crypt encrypts and authenticates them, in user space.

Sources: drivers/md/dm-crypt.c (crypt_iv_plain64_gen, crypt_convert_block_aead); storage.md 4 and 5. Both tables count
sectors of 512 bytes even with `sector_size:4096`, since `iv_large_sectors` is not given.

    IV    sector number, 64 bits little endian, then zeros
    tag   HMAC-SHA256 over sector number (64 bits), IV, ciphertext
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from parma_api.block.integrity import BLOCK, SECTOR

_PER_BLOCK: Final = BLOCK // SECTOR
_XTS_KEY: Final = 64


class Encryptor:
    """aes-xts-plain64 with a key of 64 bytes."""

    def __init__(self, key: bytes | bytearray) -> None:
        self._aes = algorithms.AES(bytes(key))

    def encrypt(self, block: int, data: bytes | memoryview) -> bytes:
        """The ciphertext of one block."""
        tweak = modes.XTS(_iv(block))
        return Cipher(self._aes, tweak).encryptor().update(data)


class Sealer:
    """authenc(hmac(sha256),xts(aes))-plain64 with a key of 96 bytes, the cipher's first."""

    def __init__(self, key: bytes | bytearray) -> None:
        self._encryptor = Encryptor(key[:_XTS_KEY])
        self._mac = bytes(key[_XTS_KEY:])

    def seal(self, block: int, data: bytes | memoryview) -> tuple[bytes, bytes]:
        """Ciphertext and tag of one block."""
        sealed = self._encryptor.encrypt(block, data)
        iv = _iv(block)
        return sealed, hmac.digest(self._mac, iv[:8] + iv + sealed, hashlib.sha256)


def _iv(block: int) -> bytes:
    return (block * _PER_BLOCK).to_bytes(16, "little")
