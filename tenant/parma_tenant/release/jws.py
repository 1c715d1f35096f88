"""Signed texts:

JWS in its compact form (RFC 7515), RS256 only. The algorithm is the reader's choice, never the header's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from parma_api.status import InvalidArgumentError, PermissionDeniedError
from parma_tenant.claims.encoding import canonical_json, from_b64url, read_object, to_b64url

ALGORITHM: Final = "RS256"
MAX_SIZE: Final = 256 * 1024


class SignatureError(PermissionDeniedError):
    """Signed by another key, or changed."""


class JwsFormError(InvalidArgumentError):
    """The text is no JWS of ours."""


def sign(header: Mapping[str, Any], payload: Mapping[str, Any], key: rsa.RSAPrivateKey) -> str:
    """The compact form; `alg` is added."""
    head = canonical_json({"alg": ALGORITHM, **header})
    text = f"{to_b64url(head)}.{to_b64url(canonical_json(payload))}"
    signature = key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{text}.{to_b64url(signature)}"


def read_header(text: str) -> dict[str, Any]:
    """The header, before anything is proved: to find the key by. Raises JwsFormError."""
    header, _, _ = _parts(text)
    return _object(header, "the header of a JWS")


def verify(text: str, key: rsa.RSAPublicKey) -> dict[str, Any]:
    """The payload. Raises SignatureError, JwsFormError (also: another algorithm, a critical extension)."""
    header, payload, signature = _parts(text)
    head = _object(header, "the header of a JWS")
    if head.get("alg") != ALGORITHM or "crit" in head:
        raise JwsFormError(f"a JWS is signed with {ALGORITHM} and has no critical extensions")
    signed = text.rpartition(".")[0].encode()
    try:
        key.verify(_data(signature), signed, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise SignatureError(
            "the signature does not hold: another key's, or the text was changed"
        ) from None
    return _object(payload, "the payload of a JWS")


def _parts(text: str) -> tuple[str, str, str]:
    if len(text) > MAX_SIZE:
        raise JwsFormError(f"a JWS has at most {MAX_SIZE} bytes")
    parts = text.split(".")
    if len(parts) != 3 or not all(parts) or not text.isascii() or "=" in text:
        raise JwsFormError("a JWS has three parts with dots between")
    return parts[0], parts[1], parts[2]


def _data(part: str) -> bytes:
    try:
        return from_b64url(part, "a part of a JWS")
    except InvalidArgumentError as error:
        raise JwsFormError(error.message) from None


def _object(part: str, what: str) -> dict[str, Any]:
    try:
        return read_object(_data(part), what, MAX_SIZE)
    except InvalidArgumentError as error:
        raise JwsFormError(error.message) from None
