"""Whether an ID block may stand for a launch, as the firmware judges at SNP_LAUNCH_FINISH (parma_api.snp.id_block)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from parma_api.snp.id_block import (
    AUTH_SIZE,
    KEY_SIZE,
    SIGNATURE_SIZE,
    key_digest,
    parse_id_block,
)
from parma_api.status import FailedPreconditionError

_NUMBER: Final = 72
_CURVE_P384, _ECDSA_P384 = 2, 1


class LaunchRefusedError(FailedPreconditionError):
    """The firmware would not launch such a guest."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a report says of the ID block."""

    guest_svn: int = 0
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)
    author_key_enabled: bool = False


def judge(block: bytes, auth: bytes, measurement: bytes, policy: int) -> Identity:
    """The identity of such a launch. Raises LaunchRefusedError, InvalidArgumentError (the block is none)."""
    parsed = parse_id_block(block)
    if len(auth) != AUTH_SIZE:
        raise LaunchRefusedError(f"ID authentication has {AUTH_SIZE} bytes, this has {len(auth)}")
    if parsed.launch_digest != measurement:
        raise LaunchRefusedError("the ID block is of another launch measurement")
    if parsed.policy != policy:
        raise LaunchRefusedError(
            f"the ID block has the guest policy {parsed.policy:#x}, the launch {policy:#x}"
        )
    id_algorithm, author_algorithm = struct.unpack_from("<II", auth)
    id_key = auth[0x240 : 0x240 + KEY_SIZE]
    if id_algorithm != _ECDSA_P384:
        raise LaunchRefusedError(f"unknown algorithm {id_algorithm} of the ID key")
    _require_signature("ID block", block, auth[0x040 : 0x040 + SIGNATURE_SIZE], id_key)
    author = b""
    if author_algorithm:
        author = auth[0x880 : 0x880 + KEY_SIZE]
        if author_algorithm != _ECDSA_P384:
            raise LaunchRefusedError(f"unknown algorithm {author_algorithm} of the author key")
        _require_signature("ID key", id_key, auth[0x680 : 0x680 + SIGNATURE_SIZE], author)
    return Identity(
        guest_svn=parsed.guest_svn,
        family_id=parsed.family_id,
        image_id=parsed.image_id,
        id_key_digest=key_digest(id_key),
        author_key_digest=key_digest(author) if author else bytes(48),
        author_key_enabled=bool(author),
    )


def _require_signature(what: str, signed: bytes, signature: bytes, key: bytes) -> None:
    r, s = (int.from_bytes(signature[at : at + _NUMBER], "little") for at in (0, _NUMBER))
    try:
        _public(key).verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, ValueError) as error:
        raise LaunchRefusedError(f"the signature of the {what} does not hold") from error


def _public(key: bytes) -> ec.EllipticCurvePublicKey:
    """Raises ValueError."""
    curve = int.from_bytes(key[:4], "little")
    if curve != _CURVE_P384:
        raise ValueError("another curve")
    x, y = (int.from_bytes(key[at : at + _NUMBER], "little") for at in (4, 4 + _NUMBER))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP384R1()).public_key()
