"""What a report claims, for people and for policies: every field under the name that AMD gives it."""

from __future__ import annotations

from typing import Final

from parma_api.snp.bits import SigningKey, abi_of, key_info
from parma_api.snp.product import ProductLine
from parma_api.snp.report import Report
from parma_api.snp.tcb import TcbError, parse_tcb
from parma_tenant.verify.leaf import Leaf
from parma_tenant.verify.roots import Root

_HEX: Final = (
    "report_data host_data measurement family_id image_id id_key_digest author_key_digest"
    " report_id report_id_ma chip_id"
).split()
_TCBS: Final = ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb")


def claims_of(
    report: Report, leaf: Leaf | str, line: ProductLine | None, root: Root | None
) -> dict[str, object]:
    """JSON values; they mean something only when the verdict is to accept."""
    info = key_info(report.key_info)
    known = info.signing_key in (kind.value for kind in SigningKey)
    signer = SigningKey(info.signing_key).name if known else str(info.signing_key)
    claims: dict[str, object] = {
        "version": report.version,
        "product_line": str(line) if line is not None else None,
        "signing_key": signer,
        "root": root.described if root is not None else None,
        "stub": root is not None and not root.is_amd,
        "guest_svn": report.guest_svn,
        "policy": f"0x{report.policy:x}",
        "policy_abi": str(abi_of(report.policy)),
        "platform_info": f"0x{report.platform_info:x}",
        "vmpl": report.vmpl,
    }
    claims |= {name: getattr(report, name).hex() for name in _HEX}
    claims |= {name: _tcb(getattr(report, name), line) for name in _TCBS}
    claims |= {
        "current_version": str(report.current_firmware),
        "committed_version": str(report.committed_firmware),
        "cpuid": _cpuid(report),
        "launch_mit_vector": _vector(report, report.launch_mitigations),
        "current_mit_vector": _vector(report, report.current_mitigations),
        "csp_id": leaf.csp_id if isinstance(leaf, Leaf) else None,
    }
    return claims


def _tcb(raw: bytes, line: ProductLine | None) -> dict[str, object]:
    shown: dict[str, object] = {"raw": raw.hex()}
    if line is None:
        return shown
    try:
        return {**parse_tcb(raw, line.tcb_layout).components(), **shown}
    except TcbError:
        return shown


def _cpuid(report: Report) -> list[int] | None:
    if report.version < 3:
        return None
    return [report.cpuid_family, report.cpuid_model, report.cpuid_stepping]


def _vector(report: Report, vector: int) -> str | None:
    return f"0x{vector:x}" if report.version >= 5 else None
