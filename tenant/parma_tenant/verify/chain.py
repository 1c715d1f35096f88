"""Part two, the certificates: does the leaf go back to a trusted root, by signatures, names and dates? (checks 7 to 12)

The checks are made here one by one, and OpenSSL's own path validation must agree (`openssl.second_opinion`).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from parma_api.snp.bits import SigningKey
from parma_tenant.verify.checks import Check, failed, judged, passed
from parma_tenant.verify.openssl import second_opinion
from parma_tenant.verify.path import LEAF_NAMES, Path, kind_of_issuer, kind_of_leaf
from parma_tenant.verify.roots import Root, Roots, common_name, spki_sha256

_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
_LABELS: Final = ("leaf", "issuer", "root")
_PATH_LENGTH: Final = {"issuer": 0, "root": None}


def check_chain(
    path: Path, signer: SigningKey, roots: Roots, at: datetime.datetime, *, allow_vlek: bool
) -> Iterator[Check]:
    """All checks of the chain but completeness and revocation."""
    yield _signer(path, signer, allow_vlek=allow_vlek)
    yield _root(path, roots)
    opinion = second_opinion(path, at)
    for check in (_signatures(path), _names(path), _validity(path, at)):
        dissent = opinion.get(check.name)
        if dissent and check.reason == "":
            yield failed(check.name, f"OpenSSL: {dissent}", expected=check.expected, got=check.got)
        else:
            yield check
    yield _key(path)


def root_of(path: Path, roots: Roots) -> Root | None:
    """The trusted root at the path's end, or None."""
    try:
        return roots.find(path.root.certificate)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _signer(path: Path, signer: SigningKey, *, allow_vlek: bool) -> Check:
    leaf, issuer = kind_of_leaf(path.leaf), kind_of_issuer(path.issuer)
    names = [common_name(path.leaf.certificate), common_name(path.issuer.certificate)]
    reason = ""
    if leaf is not signer:
        reason = f"the report says it was signed by a {signer.name}; the leaf is not one"
    elif issuer is not signer:
        reason = f"the issuer is not the one of {signer.name}s: VCEK and VLEK chains do not mix"
    elif signer is SigningKey.VLEK and not allow_vlek:
        reason = "signed by a VLEK, which these expectations do not allow"
    return judged(
        "chain.signer", expected=LEAF_NAMES[signer], got=names, holds=not reason, reason=reason
    )


def _root(path: Path, roots: Roots) -> Check:
    ark = path.root.certificate
    root = root_of(path, roots)
    try:
        digest = spki_sha256(ark)
    except (ValueError, UnsupportedAlgorithm):
        return failed("chain.root", "the root's public key cannot be read", expected="a known root")
    if root is None:
        reason = f"the root {common_name(ark)!r} is not trusted: its public key is not a pinned one"
        return failed("chain.root", reason, expected="a pinned public key", got=digest)
    if not signed_by(ark, ark):
        return failed("chain.root", "the root's signature over itself does not hold", got=digest)
    return passed("chain.root", expected=root.described, got=digest, reason=root.described)


def signed_by(
    certificate: x509.Certificate | x509.CertificateRevocationList, issuer: x509.Certificate
) -> bool:
    """Whether `issuer`'s key made the signature: RSASSA-PSS, SHA-384, MGF1 with SHA-384, salt of 48 bytes."""
    oid = certificate.signature_algorithm_oid
    if oid != x509.SignatureAlgorithmOID.RSASSA_PSS:
        return False
    signed = (
        certificate.tbs_certificate_bytes
        if isinstance(certificate, x509.Certificate)
        else certificate.tbs_certlist_bytes
    )
    try:
        key = issuer.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            return False
        key.verify(certificate.signature, signed, _PSS, hashes.SHA384())
        return _states_pss(certificate)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False


def _states_pss(certificate: x509.Certificate | x509.CertificateRevocationList) -> bool:
    """Whether the parameters in the certificate say the same as the signature."""
    if not isinstance(certificate.signature_hash_algorithm, hashes.SHA384):
        return False
    stated = certificate.signature_algorithm_parameters
    return isinstance(stated, padding.PSS) and stated._salt_length == 48  # noqa: SLF001 - has no public name


def _signatures(path: Path) -> Check:
    leaf, issuer, root = path.certificates
    for label, certificate, by in (("issuer", issuer, root), ("leaf", leaf, issuer)):
        if not signed_by(certificate, by):
            reason = f"the signature of the {label} ({common_name(certificate)}) does not hold"
            return failed("chain.signature", reason, expected="RSASSA-PSS SHA-384 by its issuer")
    return passed("chain.signature")


def _names(path: Path) -> Check:
    leaf, issuer, root = path.certificates
    reason = ""
    for label, certificate, by in (
        ("root", root, root),
        ("issuer", issuer, root),
        ("leaf", leaf, issuer),
    ):
        if certificate.issuer != by.subject:
            reason = f"the {label}'s issuer is not the subject of the certificate above it"
            break
        reason = _form(label, certificate)
        if reason:
            break
    names = [common_name(certificate) for certificate in path.certificates]
    return judged(
        "chain.names",
        expected=["SEV-VCEK or SEV-VLEK", "SEV-...", "ARK-..."],
        got=names,
        holds=not reason,
        reason=reason,
    )


def _form(label: str, certificate: x509.Certificate) -> str:
    """Why a certificate has not the form of its place, or nothing."""
    name = common_name(certificate)
    fits = {
        "leaf": name in LEAF_NAMES.values(),
        "issuer": name.startswith("SEV-") and name not in LEAF_NAMES.values(),
        "root": name.startswith("ARK-"),
    }
    if not fits[label]:
        return f"the {label} has the name {name!r}"
    if certificate.version is not x509.Version.v3:
        return f"the {label} is no X.509 version 3 certificate"
    try:
        extensions = certificate.extensions
    except (x509.DuplicateExtension, ValueError):
        return f"the {label}'s extensions cannot be read: one occurs twice, or is malformed"
    constraints = _extension(extensions, x509.BasicConstraints)
    usage = _extension(extensions, x509.KeyUsage)
    if any(e.critical and isinstance(e.value, x509.UnrecognizedExtension) for e in extensions):
        return f"the {label} has a critical extension that is not known"
    if label == "leaf":
        return _leaf_form(constraints, usage)
    return _authority_form(label, constraints, usage)


def _extension(extensions: x509.Extensions, kind: type[x509.ExtensionType]) -> object:
    found = (extension.value for extension in extensions if isinstance(extension.value, kind))
    return next(found, None)


def _leaf_form(constraints: object, usage: object) -> str:
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        return "the leaf is a CA"
    if isinstance(usage, x509.KeyUsage) and not usage.digital_signature:
        return "the leaf's key usage does not permit signatures"
    return ""


def _authority_form(label: str, constraints: object, usage: object) -> str:
    if not isinstance(constraints, x509.BasicConstraints) or not constraints.ca:
        return f"the {label} is no CA"
    wanted = _PATH_LENGTH[label]
    if label == "issuer" and constraints.path_length != wanted:
        return f"the issuer's path length is {constraints.path_length}; AMD's is 0"
    if not isinstance(usage, x509.KeyUsage) or not usage.key_cert_sign:
        return f"the {label}'s key usage does not permit signing certificates"
    return ""


def _validity(path: Path, at: datetime.datetime) -> Check:
    for label, certificate in zip(_LABELS, path.certificates, strict=True):
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not start <= at <= end:
            when = "is not valid yet" if at < start else "has expired"
            return failed(
                "chain.validity",
                f"the {label} ({common_name(certificate)}) {when}",
                expected=f"{start.isoformat()} to {end.isoformat()}",
                got=at.isoformat(),
            )
    return passed("chain.validity", got=at.isoformat())


def _key(path: Path) -> Check:
    """The leaf's key is P-384, those above are RSA."""
    try:
        key: object = path.leaf.certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    curve = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else "no elliptic curve"
    return judged(
        "chain.key",
        expected="secp384r1",
        got=curve,
        holds=curve == "secp384r1",
        reason="the leaf's key is not on the curve P-384",
    )
