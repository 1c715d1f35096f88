"""Public keys in claims, as JWK (RFC 7517, RFC 8037): one form for each purpose, read strictly."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from parma_api.status import InvalidArgumentError
from parma_tenant.claims.encoding import from_b64url, to_b64url

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 4096
_EXPONENT: Final = 65537
_COORDINATE: Final = 32


class KeyFormError(InvalidArgumentError):
    """A key that is none, or not of the kind that its purpose wants."""


class Purpose(enum.StrEnum):
    """What a key of the claims is for; the `kid` of its JWK."""

    TLS = "tls"
    SEALING = "sealing"
    WRAPPING = "wrapping"


def ec_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, Any]:
    """A P-256 key under which the group proves itself in TLS."""
    numbers = key.public_numbers()
    x, y = (number.to_bytes(_COORDINATE, "big") for number in (numbers.x, numbers.y))
    return {
        "crv": "P-256",
        "kid": str(Purpose.TLS),
        "kty": "EC",
        "use": "sig",
        "x": to_b64url(x),
        "y": to_b64url(y),
    }


def x25519_jwk(key: x25519.X25519PublicKey) -> dict[str, Any]:
    """A key to which requests are sealed."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {
        "crv": "X25519",
        "kid": str(Purpose.SEALING),
        "kty": "OKP",
        "use": "enc",
        "x": to_b64url(raw),
    }


def rsa_jwk(key: rsa.RSAPublicKey, kid: str = str(Purpose.WRAPPING)) -> dict[str, Any]:
    """A key to which released keys are wrapped, as the key-release sidecar of Azure writes it."""
    numbers = key.public_numbers()
    return {
        "e": to_b64url(_big_endian(numbers.e)),
        "key_ops": ["encrypt"],
        "kid": kid,
        "kty": "RSA",
        "n": to_b64url(_big_endian(numbers.n)),
    }


def _big_endian(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def read_ec(jwk: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
    """The inverse of `ec_jwk`. Raises KeyFormError."""
    _require(jwk, {"kty": "EC", "crv": "P-256", "use": "sig"}, {"x", "y"})
    x, y = (_fixed(jwk[name], name, _COORDINATE) for name in ("x", "y"))
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1()
    )
    try:
        return numbers.public_key()
    except ValueError:
        raise KeyFormError("the TLS key is no point of P-256") from None


def read_x25519(jwk: Mapping[str, Any]) -> x25519.X25519PublicKey:
    """The inverse of `x25519_jwk`. Raises KeyFormError."""
    _require(jwk, {"kty": "OKP", "crv": "X25519", "use": "enc"}, {"x"})
    return x25519.X25519PublicKey.from_public_bytes(_fixed(jwk["x"], "x", 32))


def read_rsa(jwk: Mapping[str, Any]) -> rsa.RSAPublicKey:
    """An RSA key of 2048 to 4096 bits with exponent 65537; other members are its owner's. Raises KeyFormError."""
    if jwk.get("kty") != "RSA":
        raise KeyFormError("the wrapping key is no RSA key")
    e, n = (int.from_bytes(_bytes(jwk.get(name), name), "big") for name in ("e", "n"))
    if e != _EXPONENT or not MIN_RSA_BITS <= n.bit_length() <= MAX_RSA_BITS:
        raise KeyFormError(
            f"a wrapping key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits and the exponent {_EXPONENT}"
        )
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError:
        raise KeyFormError("the wrapping key's modulus is none") from None


def _require(jwk: Mapping[str, Any], constants: Mapping[str, str], numbers: set[str]) -> None:
    if set(jwk) != {"kid", *constants, *numbers}:
        raise KeyFormError("a key of the claims has members that its kind does not have")
    for name, value in constants.items():
        if jwk[name] != value:
            raise KeyFormError(f"a key of the claims has another {name} than {value}")


def _fixed(text: object, what: str, size: int) -> bytes:
    data = _bytes(text, what)
    if len(data) != size:
        raise KeyFormError(f"{what} of a key has {size} bytes")
    return data


def _bytes(text: object, what: str) -> bytes:
    try:
        return from_b64url(text, f"{what} of a key")
    except InvalidArgumentError as error:
        raise KeyFormError(error.message) from None
