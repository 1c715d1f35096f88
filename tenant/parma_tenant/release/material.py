"""Keys that a broker holds: JWK on the way in and out of the sidecar, PKCS#8 or raw bytes while wrapped.

Nothing here puts key material into a message, a representation or a log.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from parma_api.status import InvalidArgumentError
from parma_tenant.claims.encoding import from_b64url, to_b64url

MAX_OCT: Final = 512
_RSA_BITS: Final = (2048, 3072, 4096)
_RSA_PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi")
_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}


class KeyMaterialError(InvalidArgumentError):
    """The JWK holds no private key of a known kind."""


class KeyKind(enum.StrEnum):
    """`kty` without `-HSM`."""

    RSA = "RSA"
    EC = "EC"
    OCT = "oct"


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """A key: PKCS#8 DER for RSA and EC, the bytes themselves for oct."""

    kind: KeyKind
    data: bytes = field(repr=False)

    def to_jwk(self, kid: str, key_ops: list[str]) -> dict[str, Any]:
        """The private JWK, as the sidecar hands it to its container. Raises KeyMaterialError."""
        shared: dict[str, Any] = {"kid": kid, "kty": str(self.kind), "key_ops": key_ops}
        if self.kind is KeyKind.OCT:
            return shared | {"k": to_b64url(self.data)}
        return shared | _private_members(_load(self.kind, self.data))


def from_jwk(jwk: Mapping[str, Any]) -> KeyMaterial:
    """The private key in a JWK, `kty` with or without `-HSM`. Raises KeyMaterialError."""
    kty = jwk.get("kty")
    kinds = {name: kind for kind in KeyKind for name in (str(kind), f"{kind}-HSM")}
    kind = kinds.get(kty) if isinstance(kty, str) else None
    if kind is None:
        raise KeyMaterialError(f"kty is one of {', '.join(kinds)}")
    if kind is KeyKind.OCT:
        data = _bytes(jwk, "k")
        if not 16 <= len(data) <= MAX_OCT:
            raise KeyMaterialError(f"an oct key has 16 to {MAX_OCT} bytes")
        return KeyMaterial(kind, data)
    try:
        key = _rsa(jwk) if kind is KeyKind.RSA else _ec(jwk)
    except (ValueError, OverflowError, UnsupportedAlgorithm):
        raise KeyMaterialError(f"the JWK's numbers are no private {kind} key") from None
    return KeyMaterial(kind, key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def from_wrapped(kty: object, data: bytes) -> KeyMaterial:
    """What was unwrapped, as the kind that the broker names. Raises KeyMaterialError."""
    kind = next((one for one in KeyKind if kty in (str(one), f"{one}-HSM")), None)
    if kind is None:
        raise KeyMaterialError("the released key is of an unknown kind")
    if kind is not KeyKind.OCT:
        _load(kind, data)
    return KeyMaterial(kind, data)


def _load(kind: KeyKind, data: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        key = load_der_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyMaterialError(f"the released {kind} key cannot be read") from None
    if isinstance(key, rsa.RSAPrivateKey) and kind is KeyKind.RSA:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and kind is KeyKind.EC:
        return key
    raise KeyMaterialError(f"the released key is not the {kind} key that it is said to be")


def _rsa(jwk: Mapping[str, Any]) -> rsa.RSAPrivateKey:
    e, n = _number(jwk, "e"), _number(jwk, "n")
    d = _number(jwk, "d")
    if n.bit_length() not in _RSA_BITS or e != 65537:
        raise KeyMaterialError("an RSA key has 2048, 3072 or 4096 bits and the exponent 65537")
    if "p" not in jwk:
        p, q = rsa.rsa_recover_prime_factors(n, e, d)
        rest = (rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q))
    else:
        p, q, *others = (_number(jwk, name) for name in _RSA_PRIVATE[1:])
        rest = (others[0], others[1], others[2])
    numbers = rsa.RSAPrivateNumbers(p, q, d, *rest, rsa.RSAPublicNumbers(e, n))
    return numbers.private_key()


def _ec(jwk: Mapping[str, Any]) -> ec.EllipticCurvePrivateKey:
    name = jwk.get("crv")
    curve = _CURVES.get(name) if isinstance(name, str) else None
    if curve is None:
        raise KeyMaterialError(f"crv is one of {', '.join(_CURVES)}")
    public = ec.EllipticCurvePublicNumbers(_number(jwk, "x"), _number(jwk, "y"), curve)
    return ec.EllipticCurvePrivateNumbers(_number(jwk, "d"), public).private_key()


def _private_members(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> dict[str, str]:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        point, size = key.private_numbers(), (key.curve.key_size + 7) // 8
        crv = next(name for name, curve in _CURVES.items() if curve.name == key.curve.name)
        values = {
            "d": point.private_value,
            "x": point.public_numbers.x,
            "y": point.public_numbers.y,
        }
        return {"crv": crv} | {n: to_b64url(v.to_bytes(size, "big")) for n, v in values.items()}
    parts = key.private_numbers()
    values = {
        "n": parts.public_numbers.n,
        "e": parts.public_numbers.e,
        "d": parts.d,
        "p": parts.p,
        "q": parts.q,
        "dp": parts.dmp1,
        "dq": parts.dmq1,
        "qi": parts.iqmp,
    }
    return {n: to_b64url(v.to_bytes((v.bit_length() + 7) // 8, "big")) for n, v in values.items()}


def _bytes(jwk: Mapping[str, Any], name: str) -> bytes:
    try:
        return from_b64url(jwk.get(name), f"{name} of the JWK")
    except InvalidArgumentError as error:
        raise KeyMaterialError(error.message) from None


def _number(jwk: Mapping[str, Any], name: str) -> int:
    data = _bytes(jwk, name)
    if not 0 < len(data) <= MAX_OCT + 8:
        raise KeyMaterialError(f"{name} of the JWK is no number of a key")
    return int.from_bytes(data, "big")
