"""Part three, the binding: is it this chip, at this TCB, that signed this report? (checks 13 to 16)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from parma_api.snp.bits import SigningKey
from parma_api.snp.kds import HOST, vcek_path
from parma_api.snp.product import ProductLine, line_named, line_of_report
from parma_api.snp.report import SIGNED_SIZE, Report
from parma_api.snp.tcb import Tcb, TcbError, parse_tcb
from parma_api.status import InvalidArgumentError
from parma_tenant.verify.checks import Check, Shown, failed, judged, passed
from parma_tenant.verify.expectation import Expectation
from parma_tenant.verify.leaf import Leaf, LeafError
from parma_tenant.verify.path import Path
from parma_tenant.verify.roots import Root, common_name, line_of

P384_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973


@dataclass(frozen=True, slots=True)
class Device:
    """What report and leaf say together: the product line, the leaf's extensions and its TCB."""

    line: ProductLine
    leaf: Leaf
    leaf_tcb: Tcb
    reported: Tcb


def check_signature(data: bytes, report: Report, leaf: x509.Certificate) -> Check:
    """`signature`: ECDSA P-384 over the first 0x2A0 bytes, r and s from 1 to n-1."""
    r = int.from_bytes(report.signature_r, "little")
    s = int.from_bytes(report.signature_s, "little")
    if not 0 < r < P384_ORDER or not 0 < s < P384_ORDER:
        return failed("signature", "r or s is not between 1 and the order of P-384")
    try:
        key = leaf.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return failed("signature", "the leaf's key is no elliptic curve key")
        key.verify(encode_dss_signature(r, s), data[:SIGNED_SIZE], ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return failed("signature", "the report's signature does not hold under the leaf's key")
    return passed("signature")


def read_device(report: Report, leaf: Leaf) -> Device:
    """Raises LeafError or TcbError: unknown product, or levels that cannot be read in its layout."""
    line = line_of_report(report) or (line_named(leaf.product_name) if report.version < 3 else None)
    if line is None:
        raise LeafError("the product line is not known: neither from the report nor from the leaf")
    return Device(line, leaf, leaf.tcb(), parse_tcb(report.reported_tcb, line.tcb_layout))


def check_tcb(report: Report, device: Device | str) -> Check:
    """`binding.tcb`: the leaf's levels are the reported ones. A text is why there is no device."""
    if isinstance(device, str):
        return failed("binding.tcb", device)
    return judged(
        "binding.tcb",
        expected=str(device.reported),
        got=str(device.leaf_tcb),
        holds=device.leaf_tcb == device.reported,
        reason=f"the certificate is for another TCB than the report's: get {_where(report, device)}",
    )


def _where(report: Report, device: Device) -> str:
    """The certificate that belongs to the report, as AMD's service names it."""
    try:
        return HOST + vcek_path(device.line, report.chip_id, device.reported)
    except InvalidArgumentError:
        return "the one for reported_tcb"


def check_chip_id(
    report: Report, leaf: Leaf | str, signer: SigningKey, expectation: Expectation
) -> Check:
    """`binding.chip_id`: the leaf's HWID is the chip id; a VLEK names a provider and no chip."""
    name, got = "binding.chip_id", report.chip_id.hex()
    if isinstance(leaf, str):
        return failed(name, leaf, got=got)
    reason = _chip_fault(report.chip_id, leaf, signer, expectation)
    expected: Shown = leaf.hwid.hex() if leaf.hwid else f"a chip of {leaf.csp_id}"
    if expectation.chip_id is not None and not reason:
        known = {chip.ljust(64, b"\0") for chip in expectation.chip_id}
        expected = sorted(chip.hex() for chip in expectation.chip_id)
        reason = "" if report.chip_id in known else "the chip is not one of the expected"
    return judged(name, expected=expected, got=got, holds=not reason, reason=reason)


def _chip_fault(chip: bytes, leaf: Leaf, signer: SigningKey, expectation: Expectation) -> str:
    if signer is SigningKey.VCEK and leaf.hwid is None:
        return "the VCEK names no chip"
    if signer is SigningKey.VLEK and leaf.csp_id is None:
        return "the VLEK names no provider"
    if not any(chip):
        allowed = expectation.allow_zero_chip_id
        return "" if allowed else "the chip id is masked (zero), and that is not allowed"
    if leaf.hwid is not None and leaf.hwid.ljust(len(chip), b"\0") != chip:
        return "the certificate is for another chip"
    return ""


def check_product(report: Report, leaf: Leaf | str, path: Path, root: Root | None) -> Check:
    """`binding.product`: report, leaf, issuer and root are of one product line, and the leaf has its layout."""
    name = "binding.product"
    if isinstance(leaf, str):
        return failed(name, leaf)
    lines = {
        "report": line_of_report(report),
        "leaf": line_named(leaf.product_name),
        "issuer": line_of(common_name(path.issuer.certificate)),
        "root": root.line if root is not None else line_of(common_name(path.root.certificate)),
    }
    if report.version < 3 and lines["report"] is None:
        del lines["report"]  # older reports do not say
    shown = [f"{source}: {line or 'unknown'}" for source, line in lines.items()]
    line = lines["leaf"]
    reason = ""
    if line is None or len(set(lines.values())) != 1:
        reason = "report, leaf, issuer and root are not of one product line"
    elif leaf.layout is not line.tcb_layout:
        reason = f"the leaf has the layout of {leaf.layout.value}, and the product is {line}"
    return judged(name, expected="one product line", got=shown, holds=not reason, reason=reason)


def device_checks(
    report: Report, leaf: Leaf | str, expectation: Expectation, path: Path, root: Root | None
) -> Iterator[Check]:
    """All of `binding`; `leaf` may be why it could not be read."""
    signer = SigningKey.VLEK if report.key_info >> 2 & 7 == SigningKey.VLEK else SigningKey.VCEK
    yield check_tcb(report, device_of(report, leaf))
    yield check_chip_id(report, leaf, signer, expectation)
    yield check_product(report, leaf, path, root)


def device_of(report: Report, leaf: Leaf | str) -> Device | str:
    """`read_device`, with the reason in place of the error."""
    if isinstance(leaf, str):
        return leaf
    try:
        return read_device(report, leaf)
    except (LeafError, TcbError) as error:
        return error.message
