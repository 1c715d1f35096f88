"""Part one, the report's own bytes: is it a report at all? (attestation reference 5, checks 1 to 6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from parma_api.snp.bits import POLICY_RESERVED, PolicyBit, SigningKey, key_info
from parma_api.snp.report import ECDSA_P384_SHA384, KNOWN_VERSIONS, SIZE, Report
from parma_api.snp.reserved import nonzero_reserved
from parma_tenant.verify.checks import Check, failed, judged, passed

_MAX_SHOWN: Final = 4


def check_length(data: bytes) -> Check:
    """`report.length`."""
    return judged(
        "report.length",
        expected=SIZE,
        got=len(data),
        holds=len(data) == SIZE,
        reason=f"a report has {SIZE} bytes; give the report alone, binary, whole",
    )


def check_structure(data: bytes, report: Report, version_min: int) -> Iterator[Check]:
    """The other checks of the structure; `data` has the right length."""
    yield _version(report.version, version_min)
    yield _reserved(data, report.version)
    yield judged(
        "report.algorithm",
        expected=ECDSA_P384_SHA384,
        got=report.signature_algorithm,
        holds=report.signature_algorithm == ECDSA_P384_SHA384,
        reason="the signature algorithm is not ECDSA P-384 with SHA-384",
    )
    yield _key_info(report.key_info)
    yield _policy_bits(report.policy)


def _version(version: int, least: int) -> Check:
    wanted = [str(known) for known in KNOWN_VERSIONS if known >= least]
    reason = "too old for this verifier" if version in KNOWN_VERSIONS else "no known version"
    return judged(
        "report.version",
        expected=wanted,
        got=version,
        holds=str(version) in wanted,
        reason=f"report version {version}: {reason}",
    )


def _reserved(data: bytes, version: int) -> Check:
    offsets = nonzero_reserved(data, version)
    if not offsets:
        return passed("report.reserved")
    shown = [f"0x{offset:03x}" for offset in offsets[:_MAX_SHOWN]]
    more = f" and {len(offsets) - _MAX_SHOWN} more" if len(offsets) > _MAX_SHOWN else ""
    return failed(
        "report.reserved",
        f"bytes that must be zero in version {version} are not, at {', '.join(shown)}{more}",
        expected="zero",
        got=shown,
    )


def _key_info(word: int) -> Check:
    fields = key_info(word)
    reason = ""
    if fields.reserved:
        reason = "reserved bits are set"
    elif fields.mask_chip_key:
        reason = "MASK_CHIP_KEY is set: the firmware signed nothing"
    elif fields.signing_key not in (SigningKey.VCEK, SigningKey.VLEK):
        reason = f"SIGNING_KEY is {fields.signing_key}: neither VCEK (0) nor VLEK (1)"
    return judged(
        "report.key_info",
        expected="VCEK or VLEK, unmasked",
        got=f"0x{word:x}",
        holds=not reason,
        reason=reason,
    )


def _policy_bits(policy: int) -> Check:
    one, zero = bool(policy & PolicyBit.MUST_BE_ONE), not policy & POLICY_RESERVED
    reason = "bit 17 of the guest policy must be one" if not one else "reserved bits are set"
    return judged(
        "report.policy_bits",
        expected="bit 17 one, bits 63:26 zero",
        got=f"0x{policy:x}",
        holds=one and zero,
        reason=reason,
    )
