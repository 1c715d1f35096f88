"""Runtime data: the keys of one session and the verifier's nonce in one canonical JSON text, whose hash the report
carries.

    runtime data  {"keys": [JWK, ...], "nonce": base64url of 32 bytes}, sorted names, no white space
    report_data   SHA-256(runtime data) || 32 zero bytes        (as MAA has it; attestation reference section 12)
                  or the transcript's head in the second half   (docs/attestation-guide.md)

Keys are named by `kid`: tls (EC P-256), sealing (X25519), wrapping (RSA); each at most once, at least one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519

from parma_api.status import InvalidArgumentError
from parma_tenant.claims.encoding import canonical_json, from_b64url, read_object, to_b64url
from parma_tenant.claims.keys import (
    Purpose,
    ec_jwk,
    read_ec,
    read_rsa,
    read_x25519,
    rsa_jwk,
    x25519_jwk,
)

NONCE_SIZE: Final = 32
MAX_SIZE: Final = 16 * 1024
_HALF: Final = 32
_NOTHING: Final = bytes(_HALF)


class ClaimsError(InvalidArgumentError):
    """The text is no runtime data."""


@dataclass(frozen=True, slots=True)
class RuntimeClaims:
    """What one session of a group claims. Means something only beneath a report that was verified."""

    nonce: bytes
    tls: ec.EllipticCurvePublicKey | None = None
    sealing: x25519.X25519PublicKey | None = None
    wrapping: rsa.RSAPublicKey | None = None

    def __post_init__(self) -> None:
        if len(self.nonce) != NONCE_SIZE:
            raise ClaimsError(f"a nonce has {NONCE_SIZE} bytes")
        if self.tls is None and self.sealing is None and self.wrapping is None:
            raise ClaimsError("runtime data without a key claims nothing")

    def encode(self) -> bytes:
        """The runtime data."""
        keys: list[dict[str, Any]] = []
        if self.tls is not None:
            keys.append(ec_jwk(self.tls))
        if self.sealing is not None:
            keys.append(x25519_jwk(self.sealing))
        if self.wrapping is not None:
            keys.append(rsa_jwk(self.wrapping))
        return canonical_json({"keys": keys, "nonce": to_b64url(self.nonce)})


def report_data_of(runtime: bytes, second_half: bytes = _NOTHING) -> bytes:
    """The 64 bytes that bind `runtime`; `second_half` is zero or a transcript's head."""
    if len(second_half) != _HALF:
        raise ClaimsError(f"the second half of report data has {_HALF} bytes")
    return hashlib.sha256(runtime).digest() + second_half


def parse_claims(runtime: bytes) -> RuntimeClaims:
    """The inverse of `encode`; one text for one meaning, so that nothing hides in it.

    Raises ClaimsError, KeyFormError.
    """
    try:
        document = read_object(runtime, "runtime data", MAX_SIZE)
    except InvalidArgumentError as error:
        raise ClaimsError(error.message) from None
    if set(document) != {"keys", "nonce"}:
        raise ClaimsError("runtime data has the members keys and nonce")
    found = _keys(document["keys"])
    nonce = from_b64url(document["nonce"], "the nonce")
    claims = RuntimeClaims(
        nonce,
        tls=read_ec(found[Purpose.TLS]) if Purpose.TLS in found else None,
        sealing=read_x25519(found[Purpose.SEALING]) if Purpose.SEALING in found else None,
        wrapping=read_rsa(found[Purpose.WRAPPING]) if Purpose.WRAPPING in found else None,
    )
    if claims.encode() != runtime:
        raise ClaimsError("the runtime data is not in its canonical form")
    return claims


def _keys(listed: object) -> dict[Purpose, Mapping[str, Any]]:
    known = {str(purpose): purpose for purpose in Purpose}
    found: dict[Purpose, Mapping[str, Any]] = {}
    for jwk in listed if isinstance(listed, list) else ():
        kid = jwk.get("kid") if isinstance(jwk, dict) else None
        purpose = known.get(kid) if isinstance(kid, str) else None
        if purpose is None or purpose in found:
            raise ClaimsError(f"keys of the claims are {', '.join(known)}, each at most once")
        found[purpose] = jwk
    return found
