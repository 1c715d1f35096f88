"""What a group sends to the attestation service: the body of MAA's SevSnpVm call (attestation reference section 15).

    {"report": b64url of {"SnpReport": b64url, "VcekCertChain": b64url of PEM, "Endorsements"?: b64url},
     "runtimeData": {"data": b64url, "dataType": "JSON" | "Binary"}, "initTimeData"?: likewise, "nonce"?: number}

Endorsements are passed over: what vouches for a measurement is the operator's expectation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from parma_api.status import InvalidArgumentError
from parma_tenant.claims.encoding import from_b64url, read_object

MAX_BODY: Final = 256 * 1024
_MAX_REPORT: Final = 4096
_MAX_CERTIFICATES: Final = 64 * 1024
_MAX_RUNTIME: Final = 64 * 1024
_MAX_INIT: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes that the report is over; `document` when they are said to be, and are, a JSON object."""

    data: bytes
    document: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Submission:
    """The call, read."""

    report: bytes
    certificates: bytes
    runtime: Data
    init: Data | None
    nonce: int | None


def read_submission(body: bytes) -> Submission:
    """Raises InvalidArgumentError."""
    document = read_object(body, "the request", MAX_BODY)
    packed = from_b64url(document.get("report"), "report")
    inner = read_object(packed, "the report's JSON", MAX_BODY)
    report = _bounded(inner.get("SnpReport"), "SnpReport", _MAX_REPORT)
    # Empty where the host has none: a broker with a certificate service finds them.
    certificates = _bounded(inner.get("VcekCertChain", ""), "VcekCertChain", _MAX_CERTIFICATES, 0)
    runtime = _data(document.get("runtimeData"), "runtimeData", _MAX_RUNTIME)
    if runtime is None:
        raise InvalidArgumentError("runtimeData is missing: what the report is over")
    nonce = document.get("nonce")
    if nonce is not None and (type(nonce) is not int or not 0 <= nonce < 2**64):
        raise InvalidArgumentError("nonce is a number of 64 bits")
    init = _data(document.get("initTimeData"), "initTimeData", _MAX_INIT)
    return Submission(report, certificates, runtime, init, nonce)


def _bounded(text: object, what: str, limit: int, least: int = 1) -> bytes:
    data = from_b64url(text, what)
    if not least <= len(data) <= limit:
        raise InvalidArgumentError(f"{what} has {least} to {limit} bytes")
    return data


def _data(value: object, what: str, limit: int) -> Data | None:
    """None where it is missing, or empty as Azure's sidecar sends it."""
    if value is None or (isinstance(value, dict) and value.get("data") in (None, "")):
        return None
    if not isinstance(value, dict) or value.get("dataType") not in ("JSON", "Binary"):
        raise InvalidArgumentError(f"{what} has data, and the dataType JSON or Binary")
    data = _bounded(value["data"], what, limit)
    document = read_object(data, what, limit) if value["dataType"] == "JSON" else None
    return Data(data, document)
