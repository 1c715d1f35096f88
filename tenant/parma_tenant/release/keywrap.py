"""Keys on their way: CKM_RSA_AES_KEY_WRAP (PKCS#11 3.0, 2.1.21) to the RSA key of a group's claims.

wrapped  RSA-OAEP(AES-256 key) || AES-KWP (RFC 5649) of the key; the first part is as long as the modulus
"""

from __future__ import annotations

import enum
import os
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)

from parma_api.status import DataLossError, InvalidArgumentError

MAX_KEY: Final = 16 * 1024


class Wrapping(enum.StrEnum):
    """Azure Key Vault's names; they differ in the hash of OAEP."""

    SHA1 = "CKM_RSA_AES_KEY_WRAP"
    SHA256 = "RSA_AES_KEY_WRAP_256"
    SHA384 = "RSA_AES_KEY_WRAP_384"


_HASHES: Final[dict[Wrapping, hashes.HashAlgorithm]] = {
    Wrapping.SHA1: hashes.SHA1(),  # noqa: S303 - OAEP does not rest on collisions; the name is the protocol's
    Wrapping.SHA256: hashes.SHA256(),
    Wrapping.SHA384: hashes.SHA384(),
}


def wrapping_named(name: object) -> Wrapping:
    """Raises InvalidArgumentError."""
    for wrapping in Wrapping:
        if name == wrapping:
            return wrapping
    raise InvalidArgumentError(f"enc is one of {', '.join(Wrapping)}")


def wrap(key: bytes, to: rsa.RSAPublicKey, wrapping: Wrapping) -> bytes:
    """`key` for the owner of `to` alone."""
    if not 0 < len(key) <= MAX_KEY:
        raise InvalidArgumentError(f"a key has 1 to {MAX_KEY} bytes")
    once = os.urandom(32)
    return to.encrypt(once, _oaep(wrapping)) + aes_key_wrap_with_padding(once, key)


def unwrap(data: bytes, key: rsa.RSAPrivateKey, wrapping: Wrapping) -> bytes:
    """The inverse. Raises DataLossError, which does not say where it failed."""
    size = key.key_size // 8
    wrong = DataLossError(
        "the released key cannot be unwrapped: it is for another key, or was changed"
    )
    if not size < len(data) <= size + MAX_KEY + 16:
        raise wrong
    try:
        once = key.decrypt(data[:size], _oaep(wrapping))
        return aes_key_unwrap_with_padding(once, data[size:])
    except (ValueError, InvalidUnwrap):
        raise wrong from None


def _oaep(wrapping: Wrapping) -> padding.OAEP:
    digest = _HASHES[wrapping]
    return padding.OAEP(mgf=padding.MGF1(digest), algorithm=digest, label=None)
