"""Requests to the stub PSP and its answers, over a byte stream (virtio-serial port `parma.psp`).

    request   kind u8, then  REPORT: report_data [64], vmpl u32         CERTIFICATES: nothing
    answer    status u32, length u32, body [length]

Integers little endian; bodies at most 64 KiB. The messages can ask only for what hardware would answer: nothing sets a
launch value.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from parma_api.status import InvalidArgumentError

PORT_NAME = "parma.psp"
MAX_BODY = 64 * 1024
_REPORT = struct.Struct("<B64sI")
_ANSWER = struct.Struct("<II")
ANSWER_HEADER_SIZE = _ANSWER.size


class Kind(enum.IntEnum):
    """What is asked for."""

    REPORT = 1
    CERTIFICATES = 2


class Status(enum.IntEnum):
    """Of an answer; as the firmware's message status where there is one (attestation reference, section 7)."""

    OK = 0
    INVALID_PARAMETER = 0x16
    BUSY = 0x27


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """A report over 64 bytes of the guest's choice."""

    report_data: bytes
    vmpl: int = 0


@dataclass(frozen=True, slots=True)
class CertificatesRequest:
    """The certificate table that belongs to the reports."""


Request = ReportRequest | CertificatesRequest


def encode_request(request: Request) -> bytes:
    """The bytes of a request. Raises InvalidArgumentError."""
    match request:
        case ReportRequest(report_data=data, vmpl=vmpl):
            if len(data) != 64:
                raise InvalidArgumentError("report_data must be 64 bytes")
            return _REPORT.pack(Kind.REPORT, data, vmpl)
        case CertificatesRequest():
            return bytes((Kind.CERTIFICATES,))


def body_size(kind: int) -> int:
    """Bytes that follow the kind byte of a request. Raises InvalidArgumentError for an unknown kind."""
    if kind == Kind.REPORT:
        return _REPORT.size - 1
    if kind == Kind.CERTIFICATES:
        return 0
    raise InvalidArgumentError(f"unknown request kind {kind} to the stub PSP")


def decode_request(data: bytes) -> Request:
    """The request in `data`, kind byte included. Raises InvalidArgumentError."""
    if not data or len(data) != 1 + body_size(data[0]):
        raise InvalidArgumentError(
            "a request to the stub PSP has another length than its kind says"
        )
    if data[0] == Kind.CERTIFICATES:
        return CertificatesRequest()
    _, report_data, vmpl = _REPORT.unpack(data)
    return ReportRequest(report_data, vmpl)


def encode_answer(status: Status, body: bytes = b"") -> bytes:
    """The bytes of an answer."""
    return _ANSWER.pack(status, len(body)) + body


def decode_answer_header(header: bytes) -> tuple[int, int]:
    """Status and body length. Raises InvalidArgumentError for a body that is too large."""
    status, length = _ANSWER.unpack(header)
    if length > MAX_BODY:
        raise InvalidArgumentError(
            f"the stub PSP announces {length} bytes; at most {MAX_BODY} are read"
        )
    return status, length
