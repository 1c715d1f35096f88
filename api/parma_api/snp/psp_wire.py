"""Requests to the stub PSP and its answers, over a byte stream (virtio-serial port `parma.psp`).

    request   kind u8, then  REPORT: report_data [64], vmpl u32         CERTIFICATES: nothing
                             DERIVED_KEY: root u32, fields u64, vmpl u32, guest_svn u32, tcb [8], mitigations u64
    answer    status u32, length u32, exitinfo2 u64, body [length]

Integers little endian; bodies at most 64 KiB. The messages can ask only for what hardware would answer: nothing sets a
launch value. `status` is the message's, `exitinfo2` the firmware's error in its low and the host's in its high half, as
the kernel hands them to callers of /dev/sev-guest.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from parma_api.status import InvalidArgumentError

PORT_NAME = "parma.psp"
MAX_BODY = 64 * 1024
KEY_SIZE: Final = 32
"""Bytes of a derived key."""
HOST_BUSY: Final = 2 << 32
"""exitinfo2 when the host asks to try again: SNP_GUEST_VMM_ERR_BUSY of linux/sev-guest.h."""
_REPORT = struct.Struct("<B64sI")
_DERIVED = struct.Struct("<BIQII8sQ")
_ANSWER = struct.Struct("<IIQ")
ANSWER_HEADER_SIZE = _ANSWER.size


class Kind(enum.IntEnum):
    """What is asked for."""

    REPORT = 1
    CERTIFICATES = 2
    DERIVED_KEY = 3


_SIZES: Final = {Kind.REPORT: _REPORT.size, Kind.CERTIFICATES: 1, Kind.DERIVED_KEY: _DERIVED.size}


class Status(enum.IntEnum):
    """Of a message, as the firmware has it (attestation reference, section 7)."""

    OK = 0
    INVALID_PARAMETER = 0x16
    INVALID_KEY = 0x27


class RootKey(enum.IntEnum):
    """What a key is derived from."""

    CHIP = 0
    """The VCEK or VLEK."""
    MIGRATION = 1
    """The VMRK."""


class MixedField(enum.IntFlag):
    """What else enters a derived key."""

    POLICY = 1
    IMAGE_ID = 2
    FAMILY_ID = 4
    MEASUREMENT = 8
    GUEST_SVN = 16
    TCB = 32
    LAUNCH_MITIGATIONS = 64


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """A report over 64 bytes of the guest's choice."""

    report_data: bytes
    vmpl: int = 0


@dataclass(frozen=True, slots=True)
class CertificatesRequest:
    """The certificate table that belongs to the reports."""


@dataclass(frozen=True, slots=True)
class DerivedKeyRequest:
    """A key that follows from the root and from what `fields` selects; `tcb` in the report's form."""

    root: int
    fields: int
    vmpl: int = 0
    guest_svn: int = 0
    tcb: bytes = bytes(8)
    launch_mitigations: int = 0


Request = ReportRequest | CertificatesRequest | DerivedKeyRequest


class AnswerHeader(NamedTuple):
    """What stands before the body."""

    status: int
    length: int
    exitinfo2: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; without a body unless both codes are zero."""

    status: int
    exitinfo2: int
    body: bytes


def encode_request(request: Request) -> bytes:
    """The bytes of a request. Raises InvalidArgumentError."""
    match request:
        case ReportRequest(report_data=data, vmpl=vmpl):
            if len(data) != 64:
                raise InvalidArgumentError("report_data must be 64 bytes")
            return _REPORT.pack(Kind.REPORT, data, vmpl)
        case CertificatesRequest():
            return bytes((Kind.CERTIFICATES,))
        case DerivedKeyRequest():
            if len(request.tcb) != 8:
                raise InvalidArgumentError("a TCB has 8 bytes")
            numbers = (request.root, request.fields, request.vmpl, request.guest_svn)
            return _DERIVED.pack(
                Kind.DERIVED_KEY, *numbers, request.tcb, request.launch_mitigations
            )


def body_size(kind: int) -> int:
    """Bytes that follow the kind byte of a request. Raises InvalidArgumentError for an unknown kind."""
    try:
        return _SIZES[Kind(kind)] - 1
    except ValueError as error:
        raise InvalidArgumentError(f"unknown request kind {kind} to the stub PSP") from error


def decode_request(data: bytes) -> Request:
    """The request in `data`, kind byte included. Raises InvalidArgumentError."""
    if not data or len(data) != 1 + body_size(data[0]):
        raise InvalidArgumentError(
            "a request to the stub PSP has another length than its kind says"
        )
    match Kind(data[0]):
        case Kind.CERTIFICATES:
            return CertificatesRequest()
        case Kind.DERIVED_KEY:
            return DerivedKeyRequest(*_DERIVED.unpack(data)[1:])
        case Kind.REPORT:
            return ReportRequest(*_REPORT.unpack(data)[1:])


def encode_answer(status: int, body: bytes = b"", exitinfo2: int = 0) -> bytes:
    """The bytes of an answer."""
    return _ANSWER.pack(status, len(body), exitinfo2) + body


def decode_answer_header(header: bytes) -> AnswerHeader:
    """What stands before the body. Raises InvalidArgumentError for a body that is too large."""
    found = AnswerHeader(*_ANSWER.unpack(header))
    if found.length > MAX_BODY:
        raise InvalidArgumentError(
            f"the stub PSP announces {found.length} bytes; at most {MAX_BODY} are read"
        )
    return found
