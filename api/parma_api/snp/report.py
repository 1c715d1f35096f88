"""The attestation report, 1184 bytes, read and written (AMD 56860, table "ATTESTATION_REPORT").

    0x000 version u32        0x048 key_info u32         0x180 reported_tcb      0x1E8 current build, minor, major, 0
    0x004 guest_svn u32      0x050 report_data [64]     0x188 family model step 0x1EC committed build, minor, major, 0
    0x008 policy u64         0x090 measurement [48]     0x18B zero [21]         0x1F0 launch_tcb
    0x010 family_id [16]     0x0C0 host_data [32]       0x1A0 chip_id [64]      0x1F8 launch_mit_vector u64
    0x020 image_id [16]      0x0E0 id_key_digest [48]   0x1E0 committed_tcb     0x200 current_mit_vector u64
    0x030 vmpl u32           0x110 author_key [48]                              0x208 zero [152]
    0x034 algorithm u32      0x140 report_id [32]                               0x2A0 r [72], s [72] little endian
    0x038 current_tcb        0x160 report_id_ma [32]                            0x330 zero [368]
    0x040 platform_info u64

The signature covers 0x000 to 0x29F (SHA-384, ECDSA P-384). All integers are little endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from parma_api.status import InvalidArgumentError

SIZE = 0x4A0
SIGNED_SIZE = 0x2A0
KNOWN_VERSIONS = (2, 3, 4, 5)
ECDSA_P384_SHA384 = 1
_NO_MIGRATION_AGENT = b"\xff" * 32
_HEAD = struct.Struct("<IIQ16s16sII8sQII64s48s32s48s48s32s32s8sBBB21s64s8sBBBBBBBB8sQQ152s")
_INTEGER = 72
assert _HEAD.size == SIGNED_SIZE


class ReportFormatError(InvalidArgumentError):
    """The bytes are not a report."""


@dataclass(frozen=True, slots=True)
class FirmwareVersion:
    """The security processor's firmware: major.minor.build."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"


@dataclass(frozen=True, slots=True)
class Report:
    """The fields of a report in their order; `reserved` are the bytes that must be zero, joined."""

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algorithm: int
    current_tcb: bytes
    platform_info: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid_family: int
    cpuid_model: int
    cpuid_stepping: int
    chip_id: bytes
    committed_tcb: bytes
    current_firmware: FirmwareVersion
    committed_firmware: FirmwareVersion
    launch_tcb: bytes
    launch_mitigations: int
    current_mitigations: int
    signature_r: bytes
    signature_s: bytes
    reserved: bytes

    def __post_init__(self) -> None:
        if any(
            len(value) != size
            for value, size in (
                (self.report_data, 64),
                (self.measurement, 48),
                (self.host_data, 32),
                (self.chip_id, 64),
            )
        ):
            raise ReportFormatError("a field of the report has another length than the format says")


def parse(data: bytes) -> Report:
    """The fields of `data`; judges nothing but the length. Raises ReportFormatError."""
    if len(data) != SIZE:
        raise ReportFormatError(f"a report has {SIZE} bytes, this has {len(data)}")
    field = _HEAD.unpack_from(data)
    current = FirmwareVersion(field[27], field[26], field[25])
    committed = FirmwareVersion(field[31], field[30], field[29])
    r_at, s_at = SIGNED_SIZE, SIGNED_SIZE + _INTEGER
    zeros = (data[0x4C:0x50], field[22], bytes((field[28], field[32])), field[36], data[0x330:])
    values = (
        *field[:10],
        *field[11:22],
        *field[23:25],
        current,
        committed,
        *field[33:36],
        data[r_at:s_at],
        data[s_at : s_at + _INTEGER],
        b"".join(zeros),
    )
    return Report(*values)


def build(report: Report) -> bytes:
    """The bytes of `report`; the inverse of `parse` (reserved bytes are written as zero)."""
    current, committed = report.current_firmware, report.committed_firmware
    head = _HEAD.pack(
        *(report.version, report.guest_svn, report.policy, report.family_id, report.image_id),
        *(report.vmpl, report.signature_algorithm, report.current_tcb, report.platform_info),
        *(report.key_info, 0, report.report_data, report.measurement, report.host_data),
        *(report.id_key_digest, report.author_key_digest, report.report_id, report.report_id_ma),
        *(report.reported_tcb, report.cpuid_family, report.cpuid_model, report.cpuid_stepping),
        *(bytes(21), report.chip_id, report.committed_tcb),
        *(current.build, current.minor, current.major, 0),
        *(committed.build, committed.minor, committed.major, 0),
        *(report.launch_tcb, report.launch_mitigations, report.current_mitigations, bytes(152)),
    )
    return head + report.signature_r + report.signature_s + bytes(SIZE - 0x330)


def with_signature(report: Report, r: int, s: int) -> Report:
    """`report` with the signature's two integers set."""
    return replace(
        report,
        signature_r=r.to_bytes(_INTEGER, "little"),
        signature_s=s.to_bytes(_INTEGER, "little"),
    )


def host_data_of(data: bytes) -> bytes:
    """HOST_DATA of a report's bytes, 32 bytes. Raises ReportFormatError."""
    if len(data) != SIZE:
        raise ReportFormatError(f"a report has {SIZE} bytes, this has {len(data)}")
    return data[0xC0:0xE0]
