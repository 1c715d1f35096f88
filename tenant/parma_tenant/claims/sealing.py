"""Sealed requests and responses: only the attested group opens the request, only who opened it makes the response.

    request    key id [16] || HPKE (RFC 9180, base mode: X25519, HKDF-SHA256, AES-256-GCM) of secret [32] || payload
               info = "parma sealed request 1\\n" || key id; key id = SHA-256(public key)[:16]
    response   AES-256-GCM of the payload, tag behind, nonce zero, under a key used once:
               HKDF-SHA256(secret, salt = SHA-256(request), info = "parma sealed response 1\\n")

The public key is that of verified claims. A request is opened once: the host can repeat the bytes, not the effect.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from parma_api.status import InvalidArgumentError, ResourceExhaustedError

MAX_PAYLOAD: Final = 16 << 20
_MAX_REQUESTS: Final = 65536
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_REQUEST: Final = b"parma sealed request 1\n"
_RESPONSE: Final = b"parma sealed response 1\n"
_SECRET: Final = 32
_ID: Final = 16
_OVERHEAD: Final = _ID + 32 + _SECRET + 16
_NONCE: Final = bytes(12)


class SealError(InvalidArgumentError):
    """The bytes cannot be opened: another key, changed, cut short, repeated, too long."""


def key_id(public: x25519.X25519PublicKey) -> bytes:
    """The 16 bytes by which a request names the key that opens it."""
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).digest()[:_ID]


@dataclass(frozen=True, slots=True)
class ResponseOpener:
    """Opens the response to one request."""

    _key: bytes = field(repr=False)

    def open(self, response: bytes) -> bytes:
        """The payload. Raises SealError."""
        if len(response) > MAX_PAYLOAD + 16:
            raise SealError("the sealed response is too long")
        try:
            return AESGCM(self._key).decrypt(_NONCE, response, None)
        except (InvalidTag, ValueError):
            raise SealError("the sealed response cannot be opened: it was changed") from None


@dataclass(slots=True)
class ResponseSealer:
    """Seals the response to one request, once: its key has one nonce."""

    _key: bytes | None = field(repr=False)

    def seal(self, payload: bytes) -> bytes:
        """The response. Raises SealError the second time."""
        if self._key is None:
            raise SealError("a request has one response")
        key, self._key = self._key, None
        return AESGCM(key).encrypt(_NONCE, _bounded(payload), None)


def seal_request(public: x25519.X25519PublicKey, payload: bytes) -> tuple[bytes, ResponseOpener]:
    """The request, and what opens its response. Raises SealError if the payload is too long."""
    secret, name = os.urandom(_SECRET), key_id(public)
    sealed = name + _SUITE.encrypt(secret + _bounded(payload), public, _REQUEST + name)
    return sealed, ResponseOpener(_response_key(secret, sealed))


class SealingKey:
    """The group's half: opens each request once."""

    def __init__(self, private: x25519.X25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key()
        self.id = key_id(self.public)
        self._seen: set[bytes] = set()

    @classmethod
    def generate(cls) -> SealingKey:
        """A new one."""
        return cls(x25519.X25519PrivateKey.generate())

    def open(self, request: bytes) -> tuple[bytes, ResponseSealer]:
        """The payload, and what seals the response.

        Raises SealError; ResourceExhaustedError when the key is used up.
        """
        if not _OVERHEAD <= len(request) <= MAX_PAYLOAD + _OVERHEAD:
            raise SealError("the sealed request is too short or too long")
        if request[:_ID] != self.id:
            raise SealError("the sealed request is for another key")
        digest = hashlib.sha256(request).digest()
        if digest in self._seen:
            raise SealError("the sealed request was opened before: a replay")
        if len(self._seen) >= _MAX_REQUESTS:
            raise ResourceExhaustedError("this sealing key is used up: attest again for another")
        try:
            opened = _SUITE.decrypt(request[_ID:], self._private, _REQUEST + self.id)
        except (InvalidTag, ValueError):
            raise SealError("the sealed request cannot be opened: it was changed") from None
        self._seen.add(digest)
        return opened[_SECRET:], ResponseSealer(_response_key(opened[:_SECRET], request))


def _response_key(secret: bytes, request: bytes) -> bytes:
    salt = hashlib.sha256(request).digest()
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=_RESPONSE).derive(secret)


def _bounded(payload: bytes) -> bytes:
    if len(payload) > MAX_PAYLOAD:
        raise SealError(f"a sealed message holds at most {MAX_PAYLOAD} bytes")
    return payload
