"""The processor itself: launch values that never change, and the three things that a guest may ask for.

Pure but for its source of randomness: requests in, answers out. `serve` is the process.
"""

from __future__ import annotations

import hmac
import logging
import os
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from parma_api.snp import psp_wire
from parma_api.snp.certificate_table import Slot, build_table
from parma_api.snp.product import ProductLine
from parma_api.snp.psp_wire import MixedField, RootKey, Status
from parma_api.snp.report import (
    ECDSA_P384_SHA384,
    SIGNED_SIZE,
    FirmwareVersion,
    Report,
    build,
    with_signature,
)
from parma_api.snp.tcb import Tcb, TcbError, parse_tcb
from parma_api.status import FailedPreconditionError, InvalidArgumentError
from parma_shim.psp.chain import Authority
from parma_shim.psp.launch import DEFAULT_POLICY, DEFAULT_TCB, Failure, LaunchValues
from parma_shim.psp.leaf import chip_id, host_certificates, make_leaf

__all__ = ["DEFAULT_POLICY", "DEFAULT_TCB", "Failure", "LaunchValues", "Processor"]

_log = logging.getLogger("parma.psp")
_FIRMWARE = FirmwareVersion(1, 55, 29)
_CPUID: Final = {
    ProductLine.MILAN: (0x19, 0x01, 1),
    ProductLine.GENOA: (0x19, 0x11, 1),
    ProductLine.TURIN: (0x1A, 0x02, 1),
}
"""Family, model, stepping; in reports from version 3 on."""


class InvalidKeyError(InvalidArgumentError):
    """There is no such root key."""


@dataclass(frozen=True, slots=True)
class _Levels:
    """The four TCBs of a report."""

    reported: Tcb
    current: Tcb
    committed: Tcb
    launch: Tcb


class Processor:
    """Answers one guest's requests. A new launch is a new processor."""

    def __init__(self, authority: Authority, launch: LaunchValues) -> None:
        """Raises LaunchRefusedError (ID block), FailedPreconditionError (another line's or signer's authority)."""
        if (authority.line, authority.signer) != (launch.line, launch.signer):
            raise FailedPreconditionError("the authority is of another line, or for other leaves")
        self._launch, self._identity = launch, launch.identity()
        tcb = launch.tcb
        self._levels = _Levels(
            tcb, launch.current_tcb or tcb, launch.committed_tcb or tcb, launch.launch_tcb or tcb
        )
        leaf = make_leaf(authority, launch.chip_seed, tcb)
        self._key, self._report_id, self._vmrk = leaf.key, os.urandom(32), os.urandom(32)
        self._failures = {failure.request: failure for failure in launch.failures}
        self._requests = 0
        self.certificates = host_certificates(authority, leaf.certificate, tcb)
        """As a host hands them to a guest beside its policy: `host_certificates`."""
        der = serialization.Encoding.DER
        self._table = build_table(
            {
                Slot.ARK: authority.ark.public_bytes(der),
                Slot.ASK: authority.ask.public_bytes(der),
                Slot[launch.signer.name]: leaf.certificate.public_bytes(der),
            }
        )

    def answer(self, data: bytes) -> bytes:
        """The answer to one whole request, whatever it is."""
        self._requests += 1
        failure = self._failures.get(self._requests)
        if failure is not None:
            _log.warning("stub PSP: request %d fails, as the launch values say", self._requests)
            return psp_wire.encode_answer(failure.status, b"", failure.exitinfo2)
        try:
            return psp_wire.encode_answer(Status.OK, self._body(psp_wire.decode_request(data)))
        except InvalidKeyError:
            return psp_wire.encode_answer(Status.INVALID_KEY)
        except InvalidArgumentError:
            return psp_wire.encode_answer(Status.INVALID_PARAMETER)

    def _body(self, request: psp_wire.Request) -> bytes:
        match request:
            case psp_wire.CertificatesRequest():
                return self._table
            case psp_wire.ReportRequest(report_data=report_data, vmpl=vmpl):
                return self.report(report_data, vmpl)
            case psp_wire.DerivedKeyRequest():
                return self.derived_key(request)

    def report(self, report_data: bytes, vmpl: int) -> bytes:
        """A signed report. Raises InvalidArgumentError for a VMPL above 3."""
        if vmpl > 3:
            raise InvalidArgumentError(f"no VMPL {vmpl}")
        unsigned = self._unsigned(report_data, vmpl)
        signature = self._key.sign(build(unsigned)[:SIGNED_SIZE], ec.ECDSA(hashes.SHA384()))
        return build(with_signature(unsigned, *decode_dss_signature(signature)))

    def _unsigned(self, report_data: bytes, vmpl: int) -> Report:
        launch, who, levels = self._launch, self._identity, self._levels
        family, model, stepping = _CPUID[launch.line] if launch.version >= 3 else (0, 0, 0)
        return Report(
            version=launch.version,
            guest_svn=who.guest_svn,
            policy=launch.policy,
            family_id=who.family_id,
            image_id=who.image_id,
            vmpl=vmpl,
            signature_algorithm=ECDSA_P384_SHA384,
            current_tcb=levels.current.to_bytes(),
            platform_info=1,
            key_info=int(who.author_key_enabled) | launch.signer << 2,
            report_data=report_data,
            measurement=launch.measurement,
            host_data=launch.host_data,
            id_key_digest=who.id_key_digest,
            author_key_digest=who.author_key_digest,
            report_id=self._report_id,
            report_id_ma=b"\xff" * 32,
            reported_tcb=levels.reported.to_bytes(),
            cpuid_family=family,
            cpuid_model=model,
            cpuid_stepping=stepping,
            chip_id=chip_id(launch.chip_seed, launch.line),
            committed_tcb=levels.committed.to_bytes(),
            current_firmware=_FIRMWARE,
            committed_firmware=_FIRMWARE,
            launch_tcb=levels.launch.to_bytes(),
            launch_mitigations=launch.launch_mitigations,
            current_mitigations=launch.current_mitigations,
            signature_r=bytes(72),
            signature_s=bytes(72),
            reserved=b"",
        )

    def derived_key(self, request: psp_wire.DerivedKeyRequest) -> bytes:
        """32 bytes (SNP ABI, MSG_KEY_REQ). Raises InvalidArgumentError, InvalidKeyError."""
        launch, selected = self._launch, MixedField(request.fields & 0x7F)
        if request.fields >> 7 or request.vmpl > 3:
            raise InvalidArgumentError("unknown fields, or no such VMPL")
        if request.guest_svn > self._identity.guest_svn:
            raise InvalidArgumentError("the guest's SVN is lower")
        if selected & MixedField.LAUNCH_MITIGATIONS and launch.version < 5:
            raise InvalidArgumentError("this processor has no mitigation vectors")
        secret = self._key.private_numbers().private_value.to_bytes(48, "big")
        roots: dict[int, bytes] = {RootKey.CHIP: secret, RootKey.MIGRATION: self._vmrk}
        root = roots.get(request.root)
        if root is None:
            raise InvalidKeyError(f"no root key {request.root}")
        mixed = self._mixed(request)
        parts = [mixed[field] if selected & field else b"" for field in MixedField]
        body = b"".join(struct.pack("<I", len(part)) + part for part in parts)
        head = struct.pack("<QI", request.fields, request.vmpl)
        return hmac.digest(root, b"parma stub derived key" + head + body, "sha256")

    def _mixed(self, request: psp_wire.DerivedKeyRequest) -> dict[MixedField, bytes]:
        launch, who = self._launch, self._identity
        tcb = (
            _within(request.tcb, self._levels.committed) if request.fields & MixedField.TCB else b""
        )
        return {
            MixedField.POLICY: struct.pack("<Q", launch.policy),
            MixedField.IMAGE_ID: who.image_id,
            MixedField.FAMILY_ID: who.family_id,
            MixedField.MEASUREMENT: launch.measurement,
            MixedField.GUEST_SVN: struct.pack("<I", request.guest_svn),
            MixedField.TCB: tcb,
            MixedField.LAUNCH_MITIGATIONS: struct.pack("<Q", request.launch_mitigations),
        }


def _within(raw: bytes, most: Tcb) -> bytes:
    """`raw`, a TCB that is at most `most`. Raises TcbError."""
    if most.below(parse_tcb(raw, most.layout)):
        raise TcbError("a key is derived for the committed TCB or an older one")
    return raw
