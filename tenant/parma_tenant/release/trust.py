"""Whom a relying party's own clients trust for a signed release: a chain to a root that was named, for the vault's
host.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from parma_api.status import InvalidArgumentError, PermissionDeniedError

_MAX_CHAIN: Final = 6
_MAX_CERTIFICATE: Final = 16 * 1024


class UntrustedError(PermissionDeniedError):
    """The signer's certificates do not lead to a trusted root, or are another host's."""


def signer_of(
    header: Mapping[str, Any], roots: Sequence[x509.Certificate], host: str, at: datetime.datetime
) -> rsa.RSAPublicKey:
    """The key of a JWS header's `x5c`, once its chain holds for `host`. Raises UntrustedError."""
    chain = _chain(header.get("x5c"))
    if not roots:
        raise UntrustedError("no root is named for the vault's signatures")
    try:
        verifier = (
            PolicyBuilder().store(Store(list(roots))).time(at).build_server_verifier(_subject(host))
        )
        verifier.verify(chain[0], chain[1:])
    except (VerificationError, ValueError):
        raise UntrustedError(
            f"the signer's certificates do not lead to a named root for {host[:80]}"
        ) from None
    key = chain[0].public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise UntrustedError("the signer's key is no RSA key")
    return key


def _subject(host: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _chain(x5c: object) -> list[x509.Certificate]:
    if not isinstance(x5c, list) or not 0 < len(x5c) <= _MAX_CHAIN:
        raise UntrustedError("a signed release carries the signer's certificates")
    return [_certificate(text) for text in x5c]


def _certificate(text: object) -> x509.Certificate:
    try:
        if isinstance(text, str) and len(text) <= _MAX_CERTIFICATE:
            return x509.load_der_x509_certificate(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        pass
    raise UntrustedError("x5c holds no certificates")


def read_roots(pem: bytes) -> list[x509.Certificate]:
    """Trusted roots, PEM. Raises InvalidArgumentError."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise InvalidArgumentError("the trusted roots are no PEM certificates") from None
