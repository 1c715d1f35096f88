"""Which bytes of a report must be zero, by the report's version (attestation reference, section 1).

The ranges behind the signed part matter most: ECDSA says nothing about them.
"""

from __future__ import annotations

from typing import Final

from parma_api.snp.report import SIGNED_SIZE, SIZE

_INTEGER: Final = 72
_SIGNIFICANT: Final = 48
_ALWAYS: Final = (
    (0x04C, 0x050),
    (0x18B, 0x1A0),
    (0x1EB, 0x1EC),
    (0x1EF, 0x1F0),
    (0x208, SIGNED_SIZE),
    (SIGNED_SIZE + _SIGNIFICANT, SIGNED_SIZE + _INTEGER),
    (SIGNED_SIZE + _INTEGER + _SIGNIFICANT, SIGNED_SIZE + 2 * _INTEGER),
    (SIGNED_SIZE + 2 * _INTEGER, SIZE),
)
_CPUID: Final = (0x188, 0x18B)
"""Family, model, stepping: written since version 3."""
_MITIGATIONS: Final = (0x1F8, 0x208)
"""Two vectors: written since version 5."""


def reserved_ranges(version: int) -> tuple[tuple[int, int], ...]:
    """First offset and offset behind of each range that must be zero in a report of this version."""
    ranges = list(_ALWAYS)
    if version < 3:
        ranges.append(_CPUID)
    if version < 5:
        ranges.append(_MITIGATIONS)
    return tuple(sorted(ranges))


def nonzero_reserved(report: bytes, version: int) -> tuple[int, ...]:
    """Offsets of the bytes that should be zero and are not."""
    return tuple(
        offset
        for start, end in reserved_ranges(version)
        for offset in range(start, end)
        if report[offset]
    )
