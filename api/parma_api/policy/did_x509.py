"""Certificate chains of envelopes, and issuers of the form did:x509 (policy.md, section 11.1)."""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

MAX_CERTIFICATES: Final = 100
_MAX_CHECKS: Final = 256
"""Signatures checked for one chain: the order of certificates is the host's."""
_UNDERSTOOD: Final = (
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.ExtendedKeyUsage,
    x509.SubjectAlternativeName,
)
_FULCIO_ISSUER: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_NAMES: Final = {
    "C": NameOID.COUNTRY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "L": NameOID.LOCALITY_NAME,
    "S": NameOID.STATE_OR_PROVINCE_NAME,
    "STREET": NameOID.STREET_ADDRESS,
    "POSTALCODE": NameOID.POSTAL_CODE,
    "SERIALNUMBER": NameOID.SERIAL_NUMBER,
    "CN": NameOID.COMMON_NAME,
}
_OID: Final = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_ESCAPES: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class ChainError(Exception):
    """The certificates do not hold together; the text says why."""


class IssuerError(Exception):
    """The issuer's name does not hold for the chain; the text says why."""


def load_certificates(encoded: Sequence[bytes]) -> list[x509.Certificate]:
    """Signer first, root last. Raises ChainError."""
    if not 2 <= len(encoded) <= MAX_CERTIFICATES:
        raise ChainError(f"2 to {MAX_CERTIFICATES} certificates are needed, not {len(encoded)}")
    try:
        return [x509.load_der_x509_certificate(der) for der in encoded]
    except (ValueError, x509.InvalidVersion):
        raise ChainError("a certificate is broken") from None


def find_path(certificates: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """A path from the first certificate to the last, which is taken as root. Raises ChainError.

    Time is judged at the end of the signer's own validity: an expired signer passes, an issuer that ends before it
    does not.
    """
    signer, root = certificates[0], certificates[-1]
    moment = signer.not_valid_after_utc
    budget = [_MAX_CHECKS]
    path = _extend([signer], list(certificates[1:-1]), root, moment, budget)
    if path is None:
        raise ChainError("there is no path from the signer to the last certificate")
    return path


def _extend(
    path: list[x509.Certificate],
    others: list[x509.Certificate],
    root: x509.Certificate,
    moment: datetime.datetime,
    budget: list[int],
) -> list[x509.Certificate] | None:
    if _valid_at(root, moment) and _issued(path[-1], root, budget):
        return [*path, root]
    for index, candidate in enumerate(others):
        if not _is_authority(candidate, len(path) - 1) or not _valid_at(candidate, moment):
            continue
        if _issued(path[-1], candidate, budget):
            rest = others[:index] + others[index + 1 :]
            found = _extend([*path, candidate], rest, root, moment, budget)
            if found is not None:
                return found
    return None


def _valid_at(certificate: x509.Certificate, moment: datetime.datetime) -> bool:
    return certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc


def _issued(certificate: x509.Certificate, issuer: x509.Certificate, budget: list[int]) -> bool:
    if certificate.issuer != issuer.subject:
        return False
    budget[0] -= 1
    if budget[0] < 0:
        raise ChainError("the chain takes too many checks")
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _is_authority(certificate: x509.Certificate, below: int) -> bool:
    """Whether it may issue with `below` authorities under it. An unknown critical extension is a no."""
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except (
        ValueError,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ):
        return False
    if any(
        extension.critical and not isinstance(extension.value, _UNDERSTOOD)
        for extension in extensions
    ):
        return False
    for extension in extensions:
        if isinstance(extension.value, x509.KeyUsage) and not extension.value.key_cert_sign:
            return False
    return constraints.ca and (constraints.path_length is None or constraints.path_length >= below)


def check_issuer(issuer: str, path: Sequence[x509.Certificate]) -> None:
    """Whether the did:x509 holds for a path that was found. Raises IssuerError."""
    head, *conditions = issuer.split("::")
    prefix = head.split(":")
    if len(prefix) != 5 or prefix[:3] != ["did", "x509", "0"] or not conditions:
        raise IssuerError("the issuer is no did:x509 of version 0 with a condition")
    if not _pinned(prefix[3], prefix[4], path[1:]):
        raise IssuerError("no authority of the chain has the issuer's fingerprint")
    for condition in conditions:
        kind, _, value = condition.partition(":")
        holds = _CONDITIONS.get(kind)
        try:
            if holds is None or not holds(value, path[0]):
                raise IssuerError(f"the condition {kind} does not hold for the signer")
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            raise IssuerError(f"the condition {kind} cannot be judged") from None


def _pinned(algorithm: str, fingerprint: str, authorities: Sequence[x509.Certificate]) -> bool:
    if algorithm not in ("sha256", "sha384", "sha512"):
        return False
    for authority in authorities:
        digest = hashlib.new(algorithm, _der(authority)).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii") == fingerprint:
            return True
    return False


def _der(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)


def _plain(text: str) -> str:
    if _ESCAPES.search(text):
        raise ValueError("broken percent encoding")
    return unquote(text, errors="strict")


def _subject_holds(value: str, signer: x509.Certificate) -> bool:
    parts = value.split(":")
    keys = parts[::2]
    if len(parts) % 2 or len(set(keys)) != len(keys):
        return False
    for key, wanted in zip(keys, parts[1::2], strict=True):
        oid = _NAMES.get(key) or (x509.ObjectIdentifier(key) if _OID.fullmatch(key) else None)
        if oid is None:
            return False
        if _plain(wanted) not in [
            attribute.value for attribute in signer.subject.get_attributes_for_oid(oid)
        ]:
            return False
    return True


def _san_holds(value: str, signer: x509.Certificate) -> bool:
    kind, _, wanted = value.partition(":")
    try:
        names = signer.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    kinds: dict[
        str, type[x509.DNSName | x509.RFC822Name | x509.IPAddress | x509.UniformResourceIdentifier]
    ] = {
        "dns": x509.DNSName,
        "email": x509.RFC822Name,
        "ipaddress": x509.IPAddress,
        "uri": x509.UniformResourceIdentifier,
    }
    wanted_kind = kinds.get(kind)
    return wanted_kind is not None and any(
        isinstance(name, wanted_kind) and str(name.value) == _plain(wanted) for name in names
    )


def _eku_holds(value: str, signer: x509.Certificate) -> bool:
    try:
        usages = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return value in [usage.dotted_string for usage in usages]


def _fulcio_holds(value: str, signer: x509.Certificate) -> bool:
    wanted = f"https://{_plain(value)}".encode()
    for extension in signer.extensions:
        if extension.oid == _FULCIO_ISSUER and isinstance(
            extension.value, x509.UnrecognizedExtension
        ):
            return extension.value.value == wanted
    return False


_CONDITIONS: Final[dict[str, Callable[[str, x509.Certificate], bool]]] = {
    "subject": _subject_holds,
    "san": _san_holds,
    "eku": _eku_holds,
    "fulcio-issuer": _fulcio_holds,
}
