"""The processor itself: launch values that never change, and the two things that a guest may ask for.

Pure but for its source of randomness: requests in, answers out. `serve` is the process.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from parma_api.snp import psp_wire
from parma_api.snp.report import (
    ECDSA_P384_SHA384,
    SIGNED_SIZE,
    FirmwareVersion,
    Report,
    build,
    with_signature,
)
from parma_api.status import InvalidArgumentError
from parma_shim.psp.chain import (
    Authority,
    Tcb,
    chip_id,
    host_certificates,
    vcek_certificate,
    vcek_key,
)

DEFAULT_POLICY = 0x30000
"""Guest policy: SMT allowed, and the bit that must be one."""
DEFAULT_TCB = Tcb(4, 0, 24, 219)
_FIRMWARE = FirmwareVersion(1, 55, 29)
_GUID = {
    "ark": uuid.UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae"),
    "ask": uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782"),
    "vcek": uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd"),
}


@dataclass(frozen=True, slots=True)
class LaunchValues:
    """What hardware would fix at launch: `measurement` 48 bytes, `host_data` 32 bytes."""

    measurement: bytes
    host_data: bytes
    policy: int = DEFAULT_POLICY
    tcb: Tcb = DEFAULT_TCB
    chip_seed: bytes = b"parma stub chip 0"

    def __post_init__(self) -> None:
        if len(self.measurement) != 48 or len(self.host_data) != 32:
            raise InvalidArgumentError("launch values: measurement has 48 bytes, host_data 32")


class Processor:
    """Answers one guest's requests. A new launch is a new processor."""

    def __init__(self, authority: Authority, launch: LaunchValues) -> None:
        self._launch = launch
        self._key = vcek_key(authority, launch.chip_seed, launch.tcb)
        self._report_id = os.urandom(32)
        leaf = vcek_certificate(authority, launch.chip_seed, launch.tcb)
        self.certificates = host_certificates(authority, leaf, launch.tcb)
        """As a host hands them to a guest beside its policy: `host_certificates`."""
        der = serialization.Encoding.DER
        self._table = certificate_table(
            {
                "ark": authority.ark.public_bytes(der),
                "ask": authority.ask.public_bytes(der),
                "vcek": leaf.public_bytes(der),
            }
        )

    def answer(self, data: bytes) -> bytes:
        """The answer to one whole request, whatever it is."""
        try:
            request = psp_wire.decode_request(data)
        except InvalidArgumentError:
            return psp_wire.encode_answer(psp_wire.Status.INVALID_PARAMETER)
        match request:
            case psp_wire.CertificatesRequest():
                return psp_wire.encode_answer(psp_wire.Status.OK, self._table)
            case psp_wire.ReportRequest(report_data=report_data, vmpl=vmpl):
                if vmpl > 3:
                    return psp_wire.encode_answer(psp_wire.Status.INVALID_PARAMETER)
                report = self.report(report_data, vmpl)
                return psp_wire.encode_answer(psp_wire.Status.OK, report)

    def report(self, report_data: bytes, vmpl: int) -> bytes:
        """A signed report, version 3, Milan."""
        launch = self._launch
        tcb = launch.tcb.to_bytes()
        unsigned = Report(
            version=3,
            guest_svn=0,
            policy=launch.policy,
            family_id=bytes(16),
            image_id=bytes(16),
            vmpl=vmpl,
            signature_algorithm=ECDSA_P384_SHA384,
            current_tcb=tcb,
            platform_info=1,
            key_info=0,
            report_data=report_data,
            measurement=launch.measurement,
            host_data=launch.host_data,
            id_key_digest=bytes(48),
            author_key_digest=bytes(48),
            report_id=self._report_id,
            report_id_ma=b"\xff" * 32,
            reported_tcb=tcb,
            cpuid_family=0x19,
            cpuid_model=1,
            cpuid_stepping=1,
            chip_id=chip_id(launch.chip_seed),
            committed_tcb=tcb,
            current_firmware=_FIRMWARE,
            committed_firmware=_FIRMWARE,
            launch_tcb=tcb,
            launch_mitigations=0,
            current_mitigations=0,
            signature_r=bytes(72),
            signature_s=bytes(72),
            reserved=b"",
        )
        signature = self._key.sign(build(unsigned)[:SIGNED_SIZE], ec.ECDSA(hashes.SHA384()))
        return build(with_signature(unsigned, *decode_dss_signature(signature)))


def certificate_table(certificates: dict[str, bytes]) -> bytes:
    """The table of an extended report: 24-byte entries {GUID, offset, length}, a zero entry, then the certificates."""
    offset = 24 * (len(certificates) + 1)
    head, body = bytearray(), bytearray()
    for name, der in certificates.items():
        head += _GUID[name].bytes + offset.to_bytes(4, "little") + len(der).to_bytes(4, "little")
        body += der
        offset += len(der)
    return bytes(head) + bytes(24) + bytes(body)
