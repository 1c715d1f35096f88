"""Revocation: AMD's root lists revoked ASKs and ASVKs; single VCEKs are never listed (check 11)."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from cryptography import x509

from parma_tenant.verify.chain import signed_by
from parma_tenant.verify.checks import Check, failed, passed, skipped
from parma_tenant.verify.path import Path

NAME = "chain.crl"


def check_crl(
    path: Path,
    crls: Sequence[x509.CertificateRevocationList],
    at: datetime.datetime,
    *,
    required: bool,
) -> Check:
    """`chain.crl`: every list given must be the root's and current, and may not name the issuer or the root."""
    if not crls:
        if required:
            return failed(NAME, "no revocation list was given, and one is required", got=None)
        return skipped(NAME, "no revocation list was given")
    for crl in crls:
        reason = _fault(path, crl, at)
        if reason:
            return failed(NAME, reason, expected="current, the root's, without the issuer")
    until = min(crl.next_update_utc or at for crl in crls)
    return passed(NAME, got=f"current until {until.isoformat()}")


def _fault(path: Path, crl: x509.CertificateRevocationList, at: datetime.datetime) -> str:
    """Why the list refuses the chain, or nothing."""
    _, issuer, root = path.certificates
    if crl.issuer != root.subject or not signed_by(crl, root):
        return "the revocation list is not signed by the root"
    try:
        if any(extension.critical for extension in crl.extensions):
            return "the revocation list covers a part only: it has a critical extension"
    except (x509.DuplicateExtension, ValueError):
        return "the revocation list's extensions cannot be read"
    if crl.next_update_utc is None:
        return "the revocation list does not say until when it holds"
    if at < crl.last_update_utc:
        return f"the revocation list is of {crl.last_update_utc.isoformat()}: not yet issued"
    if at > crl.next_update_utc:
        return f"the revocation list ended at {crl.next_update_utc.isoformat()}: get a new one"
    for label, certificate in (("issuer", issuer), ("root", root)):
        if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            return f"the {label} (serial {certificate.serial_number}) is revoked"
    return ""
