"""Whom a chain may end at: AMD's roots by public key, and roots that the verifier named. Names prove nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from parma_api.snp.product import ProductLine, line_named
from parma_tenant.verify.intake import IntakeError

AMD: Final = MappingProxyType(
    {
        "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9": ProductLine.MILAN,
        "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831": ProductLine.GENOA,
        "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08": ProductLine.TURIN,
    }
)
"""SHA-256 of the SubjectPublicKeyInfo of each line's ARK."""


@dataclass(frozen=True, slots=True)
class Root:
    """A trusted root key; `line` is None when the verifier's root does not name one."""

    spki_sha256: str
    line: ProductLine | None
    is_amd: bool

    @property
    def described(self) -> str:
        """For people: whose root, and that it is a stub's where it is not AMD's."""
        if self.is_amd:
            return f"AMD {self.line}"
        return "stub: a root of the verifier's own, not AMD's"


@dataclass(frozen=True, slots=True)
class Roots:
    """The roots that are trusted, by the hash of the key."""

    by_spki: tuple[Root, ...]

    def find(self, certificate: x509.Certificate) -> Root | None:
        """The root with the certificate's key, or None."""
        digest = spki_sha256(certificate)
        return next((root for root in self.by_spki if root.spki_sha256 == digest), None)


AMD_ROOTS: Final = Roots(tuple(Root(digest, line, is_amd=True) for digest, line in AMD.items()))


def with_trusted(certificates: Iterable[x509.Certificate]) -> Roots:
    """AMD's roots and these. A root that is AMD's already stays so. Raises IntakeError for a non-root."""
    roots = AMD_ROOTS.by_spki
    for certificate in certificates:
        if certificate.subject != certificate.issuer:
            raise IntakeError(
                "a trusted root must be self-signed: give the ARK, not the ASK or VCEK"
            )
        digest = spki_sha256(certificate)
        if digest not in AMD:
            roots += (Root(digest, line_of(common_name(certificate)), is_amd=False),)
    return Roots(roots)


def spki_sha256(certificate: x509.Certificate) -> str:
    """SHA-256 of the public key in its SubjectPublicKeyInfo form, hexadecimal."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).hexdigest()


def common_name(certificate: x509.Certificate) -> str:
    """The one common name, or nothing when there is none or more than one."""
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def line_of(name: str) -> ProductLine | None:
    """The product line at the end of a name like `ARK-Milan`, `SEV-VLEK-Genoa`, `ARK-STUB-Milan`."""
    return line_named(name.rpartition("-")[2]) if "-" in name else None
