"""COSE_Sign1 (RFC 9052): parsing and the signature; cbor2 and cryptography are imported when a fragment comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import cbor2
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

_Hashes = dict[object, Callable[[], hashes.HashAlgorithm]]
MAX_ENVELOPE: Final = 4 << 20
_TAG: Final = 18
_ALGORITHM, _CRITICAL = 1, 2
_ECDSA: _Hashes = {
    -7: hashes.SHA256,
    -35: hashes.SHA384,
    -36: hashes.SHA512,
}
_PSS: _Hashes = {
    -37: hashes.SHA256,
    -38: hashes.SHA384,
    -39: hashes.SHA512,
}
_EDDSA: Final = -8
_MIN_RSA_BITS: Final = 2048

PublicKey = (
    ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
)


class CoseError(Exception):
    """Not a COSE_Sign1 that holds; the text says why."""


@dataclass(frozen=True, slots=True)
class Sign1:
    """A parsed message; nothing of it is proved yet."""

    protected: bytes
    header: Mapping[object, object]
    unprotected: Mapping[object, object]
    payload: bytes | None
    signature: bytes

    def bare(self) -> bytes:
        """The tagged message with an empty unprotected header, which is what ledgers take the hash of."""
        return cbor2.dumps(cbor2.CBORTag(_TAG, [self.protected, {}, self.payload, self.signature]))


def parse_sign1(encoded: bytes) -> Sign1:
    """Raises CoseError. Exactly one tagged message, nothing behind it."""
    message = decode(encoded)
    if not isinstance(message, cbor2.CBORTag) or message.tag != _TAG:
        raise CoseError("not tagged as COSE_Sign1")
    parts = message.value
    if not isinstance(parts, list | tuple) or len(parts) != 4:
        raise CoseError("not four parts")
    protected, unprotected, payload, signature = parts
    if (
        not isinstance(protected, bytes)
        or not isinstance(unprotected, Mapping)
        or not isinstance(signature, bytes)
    ):
        raise CoseError("a part has the wrong type")
    if payload is not None and not isinstance(payload, bytes):
        raise CoseError("the payload is no byte string")
    header = decode(protected)
    if not isinstance(header, Mapping):
        raise CoseError("the protected header is no map")
    if _CRITICAL in header:
        raise CoseError("the header demands an extension")
    return Sign1(protected, header, unprotected, payload, signature)


def decode(encoded: bytes) -> object:
    """One CBOR item and nothing behind it. Raises CoseError."""
    if len(encoded) > MAX_ENVELOPE:
        raise CoseError(f"larger than {MAX_ENVELOPE} bytes")
    try:
        stream = BytesIO(encoded)
        item = cbor2.load(stream)
        if stream.read(1):
            raise CoseError("trailing bytes")
    except (
        cbor2.CBORDecodeError,
        ValueError,
        TypeError,
        RecursionError,
        OverflowError,
        EOFError,
    ) as error:
        raise CoseError(f"broken CBOR: {type(error).__name__}") from None
    return item


def verify(message: Sign1, key: object, payload: bytes) -> None:
    """Check the signature over the protected header and `payload`. Raises CoseError."""
    signed = cbor2.dumps(["Signature1", message.protected, b"", payload])
    algorithm = message.header.get(_ALGORITHM)
    try:
        _verify(algorithm, key, message.signature, signed)
    except InvalidSignature:
        raise CoseError("the signature does not hold") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CoseError(f"the signature cannot be checked: {type(error).__name__}") from None


def _verify(algorithm: object, key: object, signature: bytes, signed: bytes) -> None:
    if algorithm in _ECDSA and isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(_dss(key, signature), signed, ec.ECDSA(_ECDSA[algorithm]()))
    elif algorithm in _PSS and isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _MIN_RSA_BITS:
            raise CoseError("the RSA key is too short")
        digest = _PSS[algorithm]()
        key.verify(signature, signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    elif algorithm == _EDDSA and isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(signature, signed)
    else:
        raise CoseError(f"algorithm {algorithm} does not go with the signer's key")


def _dss(key: ec.EllipticCurvePublicKey, signature: bytes) -> bytes:
    half = (key.curve.key_size + 7) // 8
    if len(signature) != 2 * half:
        raise CoseError("the signature has the wrong length")
    return encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))


_CURVES: Final[dict[object, Callable[[], ec.EllipticCurve]]] = {
    1: ec.SECP256R1,
    2: ec.SECP384R1,
    3: ec.SECP521R1,
}


def public_key(raw: object) -> tuple[bytes, PublicKey]:
    """Key id and key of a COSE_Key (EC2 or OKP). Raises CoseError."""
    if not isinstance(raw, Mapping):
        raise CoseError("a key is no map")
    key_id, kind = raw.get(2), raw.get(1)
    x, y, curve = raw.get(-2), raw.get(-3), raw.get(-1)
    if not isinstance(key_id, bytes) or not isinstance(x, bytes):
        raise CoseError("a key has no id or no coordinate")
    try:
        if kind == 2 and isinstance(y, bytes) and curve in _CURVES:
            numbers = ec.EllipticCurvePublicNumbers(
                int.from_bytes(x), int.from_bytes(y), _CURVES[curve]()
            )
            return key_id, numbers.public_key()
        if kind == 1 and curve == 6:
            return key_id, ed25519.Ed25519PublicKey.from_public_bytes(x)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CoseError(f"a key is broken: {type(error).__name__}") from None
    raise CoseError("a key is of an unknown kind")
