"""The server's certificate: self-signed by the session's TLS key, with the evidence in an extension.

    extension  2.25.50552994537329721388984563787754918539 (an UUID's arc, X.667), not critical: a bundle

Its dates come from the guest's clock, which is the host's: they tell when it was renewed, and nobody's trust rests on
them. What makes it fresh is the nonce in the evidence.
"""

from __future__ import annotations

import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from parma_tenant.claims.evidence import (
    Attested,
    Bundle,
    Demand,
    EvidenceError,
    RefusedError,
    decode_bundle,
    judge_bundle,
)

EVIDENCE_OID: Final = x509.ObjectIdentifier("2.25.50552994537329721388984563787754918539")
_NAME: Final = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "parma attested group")])
_SKEW: Final = datetime.timedelta(hours=1)


def make_certificate(
    key: ec.EllipticCurvePrivateKey,
    bundle: Bundle,
    now: datetime.datetime,
    lifetime: datetime.timedelta,
) -> x509.Certificate:
    """A certificate of that lifetime. Raises EvidenceError if the evidence is too long."""
    extension = x509.UnrecognizedExtension(EVIDENCE_OID, bundle.encode())
    return (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(extension, critical=False)
        .sign(key, hashes.SHA256())
    )


def judge_certificate(
    certificate: x509.Certificate, nonce: bytes, demand: Demand, at: datetime.datetime
) -> Attested:
    """What the certificate's evidence proves of the certificate's key. Raises RefusedError.

    That the peer has the private half is what the TLS handshake proves.
    """
    try:
        bundle = _bundle(certificate)
        certificate.verify_directly_issued_by(certificate)
    except (EvidenceError, ValueError, TypeError, InvalidSignature) as error:
        raise RefusedError(f"the certificate carries no evidence: {_line(error)}") from error
    attested = judge_bundle(bundle, nonce, demand, at)
    claimed = attested.claims.tls
    if claimed is None or _spki(claimed) != _spki(certificate.public_key()):
        raise RefusedError(
            "the certificate's key is not the one that the report binds: a man in the middle"
        )
    return attested


def _bundle(certificate: x509.Certificate) -> Bundle:
    try:
        extension = certificate.extensions.get_extension_for_oid(EVIDENCE_OID).value
    except x509.ExtensionNotFound:
        raise EvidenceError("it is an ordinary certificate") from None
    except x509.DuplicateExtension:
        raise EvidenceError("an extension occurs twice") from None
    assert isinstance(extension, x509.UnrecognizedExtension)
    return decode_bundle(extension.value)


def _spki(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or ["malformed"])[0][:160]
