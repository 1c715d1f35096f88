"""Who is who among the certificates: leaf, issuer, root. By content, not by name: names are judged later."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from parma_api.snp.bits import SigningKey
from parma_api.snp.certificate_table import Slot
from parma_tenant.verify.intake import Certificates, Given
from parma_tenant.verify.leaf import ARC
from parma_tenant.verify.roots import common_name

LEAF_NAMES: Final = {SigningKey.VCEK: "SEV-VCEK", SigningKey.VLEK: "SEV-VLEK"}
_VLEK_ISSUER: Final = "SEV-VLEK-"
_LEAF_SLOTS: Final = {SigningKey.VCEK: Slot.VCEK, SigningKey.VLEK: Slot.VLEK}


@dataclass(frozen=True, slots=True)
class Path:
    """Leaf (VCEK or VLEK), issuer (ASK or ASVK), root (ARK)."""

    leaf: Given
    issuer: Given
    root: Given

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """From the leaf up."""
        return (self.leaf.certificate, self.issuer.certificate, self.root.certificate)


class PathError(Exception):
    """No path, or more than one; the text says why."""


def find_path(certificates: Certificates, signer: SigningKey) -> Path:
    """The one path for a report signed by `signer`.

    Of several, those are taken that have the signer's kind and the name that the certificate below says, where there
    are any. Two different ones for one place are refused: the choice would be the sender's. Raises PathError.
    """
    what = ("VCEK", "ASK") if signer is SigningKey.VCEK else ("VLEK", "ASVK")
    leaf = _only(_of_kind(_leaves(certificates.given), signer, kind_of_leaf), what[0])
    issuers = _of_kind(_issuers(certificates.given), signer, kind_of_issuer)
    issuer = _only(_named(issuers, leaf), what[1])
    roots = [given for given in certificates.given if _is_root(given)]
    return Path(leaf, issuer, _only(_named(roots, issuer), "ARK"))


def _named(given: list[Given], below: Given) -> list[Given]:
    """Those that the certificate below names as its issuer, else all: a wrong name is judged by `chain.names`."""
    named = [one for one in given if one.certificate.subject == below.certificate.issuer]
    return named or given


def _only(given: Iterable[Given], what: str) -> Given:
    distinct = {one.der: one for one in given}
    if len(distinct) != 1:
        count = "no" if not distinct else f"{len(distinct)} different"
        raise PathError(f"{count} {what} among the certificates; exactly one is needed")
    return next(iter(distinct.values()))


def _of_kind(
    given: list[Given], signer: SigningKey, kind: Callable[[Given], SigningKey | None]
) -> list[Given]:
    fitting = [one for one in given if kind(one) is signer]
    return fitting or given


def kind_of_leaf(given: Given) -> SigningKey | None:
    """What the leaf's name says, or None when name and slot of the table disagree or say nothing."""
    name = common_name(given.certificate)
    for kind, known in LEAF_NAMES.items():
        if name == known and given.slot in (None, _LEAF_SLOTS[kind]):
            return kind
    return None


def kind_of_issuer(given: Given) -> SigningKey | None:
    """Whose leaves the issuer signs, by its name."""
    name = common_name(given.certificate)
    if name.startswith(_VLEK_ISSUER):
        return SigningKey.VLEK
    return SigningKey.VCEK if name.startswith("SEV-") else None


def _is_root(given: Given) -> bool:
    if given.slot is not None:
        return given.slot is Slot.ARK
    return given.certificate.issuer == given.certificate.subject


def _is_leaf(given: Given) -> bool:
    if given.slot is not None:
        return given.slot in _LEAF_SLOTS.values()
    if _is_root(given):
        return False
    if isinstance(_key(given.certificate), ec.EllipticCurvePublicKey):
        return True
    try:
        return any(e.oid.dotted_string.startswith(ARC) for e in given.certificate.extensions)
    except (x509.DuplicateExtension, ValueError):
        return False


def _key(certificate: x509.Certificate) -> object:
    try:
        return certificate.public_key()
    except Exception:  # noqa: BLE001 - cryptography raises several kinds for keys it does not know
        return None


def _leaves(given: Iterable[Given]) -> list[Given]:
    return [one for one in given if _is_leaf(one)]


def _issuers(given: Iterable[Given]) -> list[Given]:
    return [one for one in given if not _is_leaf(one) and not _is_root(one)]
